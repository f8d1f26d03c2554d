"""A recipe that trains in a second, and helpers to read its run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from polypath.data.config import AugmentConfig, DataConfig
from polypath.data.sources import ImageData, load_images
from polypath.families.crescendonet import CrescendoNet
from polypath.training.checkpoint import Checkpoint
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe, replace
from polypath.training.run import RunFolder

NET = CrescendoNet(widths=(4, 4), scale=3, hidden=(8,), in_chans=1, dropout=0.1)
DATA = DataConfig(validation=60, train_images=160, augment=AugmentConfig(pad=1), cache=False)
RECIPE = Recipe(
    name="tiny",
    model=NET,
    data=DATA,
    optim=OptimConfig(lr=0.02, weight_decay=1e-3),
    objective=DropPath(rate=0.4),
    epochs=3,
    batch_size=32,
    device="cpu",
)


def tiny(**changes: Any) -> Recipe:
    """The recipe with other values; ``__`` stands for the dot in a dotted name."""
    return replace(RECIPE, {name.replace("__", "."): value for name, value in changes.items()})


@functools.cache
def images() -> ImageData:
    return load_images(DATA)


def left(path: Path) -> tuple[Checkpoint, bytes]:
    """The last checkpoint and the metrics of a run."""
    folder = RunFolder.open(path)
    return folder.checkpoints.load(folder.checkpoints.steps()[-1]), folder.metrics_file.read_bytes()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are bitwise equal, names and types included."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and a[k].contiguous().numpy().tobytes() == b[k].contiguous().numpy().tobytes()
        for k in a
    )
