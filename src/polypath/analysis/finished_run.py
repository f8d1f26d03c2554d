"""A finished run: its network and its images, for scoring and analyses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate
from polypath.data.batches import Part, evaluation_batches
from polypath.data.config import DataConfig
from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData
from polypath.storage.loading import load
from polypath.storage.looks import add_looks
from polypath.training.build import MODEL, resolve_device, statistics_batches
from polypath.training.result import count_test_evaluations
from polypath.training.run import RunFolder
from polypath.training.run_data import images_of, located, record_data, recorded_data

SCORING_BATCH = {"cpu": 100, "cuda": 500, "mps": 500}  # on a CPU, larger batches exceed the caches and are slower


class FinishedRun:
    """A finished run: the network that it reports, and its training and test images. Each part is loaded on first use.

    Args:
        folder: the run's folder.
        device: the device to run on; None is the recipe's device.
        data: the run's images, if they are loaded already.
        data_moved: the folder in which the run's images are now. It is stored in the run once the images have been
            read.
        by: name of the command that reads the run. It is recorded with each look, that is, each error that is measured
            on the test images (:mod:`polypath.storage.looks`).

    Raises:
        ValueError: the folder is not a run, the device is not available, or the images are not the run's.
    """

    def __init__(
        self,
        folder: Path,
        device: str | None = None,
        data: ImageData | None = None,
        data_moved: str | os.PathLike[str] | None = None,
        by: str = "python",
    ) -> None:
        self.by = by
        self.moved = None if data_moved is None else os.fspath(data_moved)
        self.folder, self.run = folder, RunFolder.open(folder)
        self.recipe = self.run.recipe
        self.device = resolve_device(device or self.recipe.device)
        if data is not None:
            self.data = images_of(self.run, data=data)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def net(self) -> PathNet:
        """The network that the run reports, in evaluation mode.

        Raises:
            ValueError: the run is not finished, or its network is damaged.
        """
        if not self.run.finished or not (self.folder / MODEL).is_dir():
            raise ValueError(f"{self.folder} is not finished; continue it with `polypath resume {self.folder}`")
        return self.placed(load(self.folder / MODEL))

    def placed(self, net: PathNet) -> PathNet:
        """Move a network of this run to the run's device and memory format."""
        net.to(self.device)
        return net.to(memory_format=torch.channels_last) if self.recipe.channels_last else net

    @cached_property
    def data(self) -> ImageData:
        """The images that the run was started with.

        Raises:
            ValueError: the images are missing or are not the run's; see :func:`polypath.training.run_data.images_of`.
        """
        found = images_of(self.run, self.moved)
        if self.moved is not None:
            with contextlib.suppress(OSError):  # if the run is read-only, data_moved is needed each time
                record_data(self.run, found, self.moved)
        return found

    def reads_as(self, other: FinishedRun) -> bool:
        """Return whether both runs have the same images, prepared in the same way."""
        mine, theirs = recorded_data(self.folder), recorded_data(other.folder)
        if located(self.recipe.data, "any") != located(other.recipe.data, "any"):
            return False
        if mine is None or theirs is None:
            return self.recipe.data == other.recipe.data
        return mine.identity == theirs.identity

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the network reads, in pixels."""
        side = self.recipe.data.size
        return (side, side) if side is not None else self.data.size

    def batches(self, part: Part = "test", data: ImageData | None = None, *, looks: int = 1) -> BatchesBase:
        """Return batches of all images of a part (such as the test images), in order, prepared as for evaluation.

        Args:
            data: images to use instead of the run's, for instance a subset of them.
            looks: number of errors that one pass through the test images measures. Each pass is counted when it begins.

        Raises:
            ValueError: the data has no such part.
        """
        config = self.recipe.data
        size = max(1, SCORING_BATCH[self.device.type] // config.eval_crops)
        batches = self._batches(data or self.data, config, size, part)
        if part == "test":
            batches.on_begin = lambda: self.add_looks(looks)
        return batches

    def add_looks(self, count: int) -> None:
        """Add to the number of errors that have been measured on the run's test images."""
        add_looks(self.folder, self.by, count)

    @property
    def test_evaluations(self) -> int:
        """The number of errors measured on this run's test split so far, by any command."""
        return sum(count_test_evaluations(self.run).values())

    def statistics_batches(self) -> BatchesBase:
        """Return batches of training images without augmentation, in a random order from the recipe's seed."""
        return statistics_batches(self.data, self.recipe, self.device)

    @property
    def recalibrates(self) -> bool:
        """Whether paths need batch-norm statistics of their own. With ``norms = frozen``, all paths were trained with
        the network's."""
        return self.recipe.norms != "frozen"

    def recalibrated(
        self, paths: Iterable[Paths], images: int, net: PathNet | None = None
    ) -> BatchNormStatistics | None:
        """Recalibrate batch-norm for each path on at most ``images`` training images, and return the statistics. Return
        None if the run does not recalibrate (:attr:`recalibrates`).

        ``net`` is a network of this run, such as a checkpoint's. The default is the network that the run reports.
        """
        if not self.recalibrates:
            return None
        return recalibrate(net or self.net, paths, self.statistics_batches(), images, seed=self.recipe.seed)

    def _batches(self, data: ImageData, config: DataConfig, size: int, part: Part, **options: Any) -> BatchesBase:
        layout = {"device": self.device, "channels_last": self.recipe.channels_last}
        return evaluation_batches(data, config, size, part, **layout, **options)
