"""A finished run: its network and its images, as scoring and analyses need them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from polypath.analysis.recalibrate import recalibrate
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.batches import Part, evaluation_batches
from polypath.data.config import DataConfig
from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData, load_images
from polypath.storage.loading import load
from polypath.training.build import MODEL, resolve_device
from polypath.training.run import RunFolder

SCORING_BATCH = {"cpu": 100, "cuda": 500, "mps": 500}  # on a CPU larger ones leave its caches and are slower
STATISTICS_BATCH = 250


class FinishedRun:
    """The network that a run reports and the images that it was trained and is scored on, each loaded when first used.

    Args:
        folder: of the run.
        device: where to work; None is the recipe's own device.
        data: images that are loaded already, where they are the same.

    Raises:
        ValueError: no run, or a device that is not there.
    """

    def __init__(self, folder: Path, device: str | None = None, data: ImageData | None = None) -> None:
        self.folder, self.run = folder, RunFolder.open(folder)
        self.recipe = self.run.recipe
        self.device = resolve_device(device or self.recipe.device)
        if data is not None:
            self.data = data

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def net(self) -> PathNet:
        """The network that the run reports, in evaluation mode.

        Raises:
            ValueError: a run that is not finished, or a damaged network.
        """
        if not (self.folder / MODEL).is_dir():
            raise ValueError(f"{self.folder}: not finished; go on with it by `polypath resume {self.folder}`")
        return self.placed(load(self.folder / MODEL))

    def placed(self, net: PathNet) -> PathNet:
        """A network of this run on its device, in its memory format."""
        net.to(self.device)
        return net.to(memory_format=torch.channels_last) if self.recipe.channels_last else net

    @cached_property
    def data(self) -> ImageData:
        return load_images(self.recipe.data)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the network reads, in pixels."""
        side = self.recipe.data.size
        return (side, side) if side is not None else self.data.size

    def batches(self, part: Part = "test", data: ImageData | None = None) -> BatchesBase:
        """All images of a part in order, prepared as for evaluation; ``data`` holds fewer or other images.

        Raises:
            ValueError: a part that there is not.
        """
        config = self.recipe.data
        size = max(1, SCORING_BATCH[self.device.type] // config.eval_crops)
        return self._batches(data or self.data, config, size, part)

    def statistics_batches(self) -> BatchesBase:
        """Training images without random changes, in an order drawn by the recipe's seed."""
        config = replace(self.recipe.data, eval_crops=1)
        size = min(STATISTICS_BATCH, len(self.data.train))
        return self._batches(self.data, config, size, "train", shuffle=True, seed=self.recipe.seed)

    def recalibrated(self, paths: Iterable[Paths], images: int, net: PathNet | None = None) -> BatchNormStatistics:
        """Batch-norm statistics of each path, recalibrated on at most so many training images.

        ``net`` is another network of this run (a checkpoint's); by default the reported one.
        """
        return recalibrate(net or self.net, paths, self.statistics_batches(), images, seed=self.recipe.seed)

    def _batches(self, data: ImageData, config: DataConfig, size: int, part: Part, **options: Any) -> BatchesBase:
        layout = {"device": self.device, "channels_last": self.recipe.channels_last}
        return evaluation_batches(data, config, size, part, **layout, **options)
