"""Make batches for training and evaluation. The configuration says whether images are in memory or streamed."""

from __future__ import annotations

from typing import Any, Literal

from polypath.core.arguments import takes
from polypath.core.checks import TEXT, WHOLE_NUMBER, instance
from polypath.data.config import DataConfig
from polypath.data.loader import Batches
from polypath.data.sources import ImageData
from polypath.data.split import Split, StreamedSplit
from polypath.data.streaming import StreamingBatches

Part = Literal["train", "validation", "test"]


@takes(data=instance(ImageData), config=instance(DataConfig), seed=WHOLE_NUMBER)
def training_batches(
    data: ImageData, config: DataConfig, batch_size: int, *, seed: int, **options: Any
) -> Batches | StreamingBatches:
    """Return shuffled and augmented batches of the training images.

    ``batch_size`` is the total over all processes. ``options`` are ``device``, ``dtype``, ``channels_last``,
    ``drop_last``, ``rank`` and ``world_size`` of :class:`~polypath.data.loader.BatchesBase`.
    """
    drawn = {"augment": config.augment, "balanced": config.balanced, "shuffle": True, "seed": seed}
    return _batches(data.train, data, config, batch_size, **drawn, **options)


@takes(data=instance(ImageData), config=instance(DataConfig), part=TEXT)
def evaluation_batches(
    data: ImageData, config: DataConfig, batch_size: int, part: Part = "test", **options: Any
) -> Batches | StreamingBatches:
    """Return batches of one part of the data, without augmentation. They are in order unless ``shuffle`` and ``seed``
    are given.

    If ``config.eval_crops`` is 10, ``x`` has ten views per image. Average them with
    ``average_views(net(x), batches.views)``.

    Raises:
        ValueError: the dataset does not have this part.
    """
    split = getattr(data, part, None) if part in ("train", "validation", "test") else None
    if split is None:
        legal = ", ".join(p for p in ("train", "validation", "test") if getattr(data, p) is not None)
        raise ValueError(f"part = {part!r}: must be one of the parts of {data.name}, which are {legal}")
    return _batches(split, data, config, batch_size, crops=config.eval_crops, **options)


def _batches(
    split: Split | StreamedSplit, data: ImageData, config: DataConfig, batch_size: int, **options: Any
) -> Batches | StreamingBatches:
    options = {"mean": data.mean, "std": data.std, "size": data.crop, **options}
    if isinstance(split, StreamedSplit):
        return StreamingBatches(split, batch_size, workers=config.workers, **options)
    return Batches(split, batch_size, **options)
