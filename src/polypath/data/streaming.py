"""Batches of images that worker processes decode, for datasets that do not fit into memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polypath.core.checks import check, whole
from polypath.core.parent import belong_to
from polypath.data.augment import Draws, places
from polypath.data.fit import cut_and_resize
from polypath.data.images import BrokenImage
from polypath.data.loader import BatchesBase, Order
from polypath.data.pipeline import Pipeline
from polypath.data.split import StreamedSplit

PREFETCH = 4  # number of batches that each worker loads ahead


class StreamingBatches(BatchesBase):
    """The same batches as :class:`~polypath.data.loader.Batches`, but from a split that is decoded during iteration.

    Worker processes decode and resize images, and cut scale-and-aspect or shorter-side crops from the original images.
    All other steps run on complete batches on the device. The order and the random changes are the same as for a split
    in memory, with any number of workers.

    Args:
        split: the images.
        workers: number of worker processes; 0 decodes in the calling process.
        batch_size, options: see :class:`~polypath.data.loader.BatchesBase`.

    Raises:
        ValueError: a value is out of range or, during iteration, an image cannot be read. If the split skips broken
            images, the batch is smaller instead, and the name of the image is added to ``skipped``.
    """

    def __init__(self, split: StreamedSplit, batch_size: int, *, workers: int = 4, **options: Any) -> None:
        workers = check("workers", workers, whole(0))
        super().__init__(split, batch_size, **options)
        self.split = split
        self.skipped: list[str] = []
        self._todo = _Todo()
        processes: dict[str, Any] = {}
        if workers:
            start = partial(_start_worker, os.getpid())
            processes = {"persistent_workers": True, "prefetch_factor": PREFETCH, "worker_init_fn": start}
        self._loader: DataLoader | None = DataLoader(
            _Reader(split, self.order, self.pipeline),
            batch_size=None,
            sampler=self._todo,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            **processes,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._loader is None:
            raise ValueError("the batches are closed, so they cannot be iterated again")
        epoch, todo = self._begin()
        self._todo.tasks = [(epoch, batch) for batch in todo]
        for (_, batch), (images, good, broken) in zip(self._todo.tasks, self._loader, strict=True):
            if good is None:
                raise BrokenImage(broken)
            if broken:
                self.skipped += broken
                warnings.warn(f"{len(broken)} images were left out: {', '.join(broken)}", UserWarning, stacklevel=2)
            yield self._prepared(epoch, batch, images, good)

    def _prepared(self, epoch: int, batch: int, images: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
        indices = self.order.indices(epoch, batch)
        own = self.order.part(len(indices))
        draws = self.draws(epoch, batch, indices).rows(own).rows(good)
        labels = self.split.labels[indices[own][good]]
        x = self.pipeline(images.to(self.device, non_blocking=True), draws, cut=draws.box is not None)
        return x, labels.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Stop the worker processes."""
        self._loader = None


class _Todo(torch.utils.data.Sampler):
    """A sampler that passes (epoch, batch) to the workers. ``tasks`` is set before each iteration."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


class _Reader(Dataset):
    """The dataset of the workers. Item (epoch, batch) is this process's part of the batch, decoded and cropped."""

    def __init__(self, split: StreamedSplit, order: Order, pipeline: Pipeline) -> None:
        self.split, self.order, self.pipeline = split, order, pipeline

    def __getitem__(self, task: tuple[int, int]) -> tuple[Any, Any, Any]:
        epoch, batch = task
        indices = self.order.indices(epoch, batch)
        own = self.order.part(len(indices))
        draws = self.pipeline.draw(len(indices), self.order.generator(epoch, batch)).rows(own)
        try:
            images, good, broken = self.split.decode(indices[own].tolist(), self._cut(draws))
        except BrokenImage as error:  # not raised: DataLoader would wrap the exception in the worker's traceback
            return None, None, str(error)
        return images, torch.tensor(good, dtype=torch.int64), broken

    def _cut(self, draws: Draws) -> Any:
        augment, size = self.pipeline.augment, self.pipeline.size or self.split.side
        if draws.box is None or augment is None:
            return None
        uniform = draws.box

        def cut(position: int, image: Image.Image) -> Image.Image:
            height, width = torch.tensor([image.height]), torch.tensor([image.width])
            box = places(augment, uniform[position : position + 1], height, width, size)
            top, left, tall, wide = box[0].tolist()
            return cut_and_resize(image, (left, top, left + wide, top + tall), size)

        return cut


def _start_worker(parent: int, _: int) -> None:
    belong_to(parent)  # torch's workers watch their parent only once they are ready, which may be too late
