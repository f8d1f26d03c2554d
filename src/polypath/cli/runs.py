"""A finished run as the subcommands that look at one need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from polypath.analysis.tables import Subject
from polypath.cli.tables import watched
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.batches import evaluation_batches
from polypath.data.sources import ImageData, load_images
from polypath.storage.loading import load
from polypath.training.build import resolve_device
from polypath.training.run import RunFolder

SCORING_BATCH = {"cpu": 100, "cuda": 500, "mps": 500}  # on a CPU larger ones leave its caches and are slower
STATISTICS_BATCH = 250
STATISTICS = "statistics.safetensors"


class FinishedRun:
    """The network that a run reports and the images that it was trained and is scored on.

    Args:
        folder: of the run.
        device: where to work; None is the recipe's own device.
        data: images that are loaded already, where they are the same.

    Raises:
        ValueError: no run, or one that is not finished.
    """

    def __init__(self, folder: Path, device: str | None = None, data: ImageData | None = None) -> None:
        self.folder = folder
        self.recipe = RunFolder.open(folder).recipe
        self.device = resolve_device(device or self.recipe.device)
        if not (folder / "model").is_dir():
            raise ValueError(f"{folder}: not finished; go on with it by `polypath resume {folder}`")
        self.net: PathNet = load(folder / "model", device=self.device)
        if self.recipe.channels_last:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._data = data

    @cached_property
    def data(self) -> ImageData:
        return self._data or load_images(self.recipe.data)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def test_batches(self) -> Any:
        """All test images in order, prepared as for evaluation."""
        config = self.recipe.data
        size = max(1, SCORING_BATCH[self.device.type] // config.eval_crops)
        return evaluation_batches(self.data, config, size, "test", **self._layout)

    def statistics_batches(self) -> Any:
        """Training images without random changes, in an order drawn by the recipe's seed."""
        config = replace(self.recipe.data, eval_crops=1)
        size = min(STATISTICS_BATCH, len(self.data.train))
        return evaluation_batches(self.data, config, size, "train", shuffle=True, seed=self.recipe.seed, **self._layout)

    def subject(self, paths: Mapping[str, Paths] | None = None) -> Subject:
        """This run for :func:`polypath.analysis.tables.path_table`; by default with the named paths."""
        test = self.test_batches()
        return Subject(
            name=self.name,
            net=self.net,
            paths=self.net.named_paths() if paths is None else paths,
            test=Watched(test, f"scoring {self.name}"),
            train=self.statistics_batches(),
            size=self.image_size,
            views=test.views,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the network reads, in pixels."""
        config = self.recipe.data
        return (config.size, config.size) if config.size is not None else self.data.size

    @property
    def _layout(self) -> dict[str, Any]:
        return {"device": self.device, "channels_last": self.recipe.channels_last}


class Watched:
    """Batches with a progress bar, as often as they are gone through."""

    def __init__(self, batches: Any, what: str) -> None:
        self.batches, self.what = batches, what

    def __iter__(self):
        return iter(watched(self.batches, self.what, len(self.batches)))
