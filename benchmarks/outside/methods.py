"""Alternatives to paths: methods, each with the networks that the method trains.

All networks except airbench's are trained in the same way: SGD with Nesterov momentum, one cycle, batches of 64, label
smoothing, mirroring, and shifts by up to two reflected pixels (as in airbench's recipe). They do not use channels-last:
in that layout, the backward pass of a strided 1×1 conv with few channels corrupts memory on CPUs (torch 2.15).

``resnets`` are :class:`polypath.families.resnet.ResNet`, since timm has no ResNet for CIFAR, and those of pytorchcv
have only one width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.outside.airbench import AirRecipe
from benchmarks.outside.airnet import MIRROR, PLAIN, VIEWS, AirNet
from benchmarks.outside.msdnet import MSDNet
from benchmarks.outside.networks import ByAirbench, ByRecipe, Network
from benchmarks.outside.switchable import SwitchableResNet
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.base import Family
from polypath.families.resnet import ResNet
from polypath.training.objectives import Objective, Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import Exits
from polypath.training.recipe import Recipe
from polypath.training.schedules import ScheduleConfig

HELD_OUT = 5000
WIDTH = 12


@dataclass(frozen=True)
class Method:
    """A method. All its ``networks`` together get the PFLOP of the method. ``about`` is a description in one line."""

    about: str
    networks: tuple[Network, ...]


def data_of(source: str) -> DataConfig:
    """Return the configuration of the images in ``source``. It is the same for all methods."""
    augment = AugmentConfig(pad=2, pad_mode="reflect", mirror=True)
    return DataConfig(source=source, validation=HELD_OUT, augment=augment)


def recipe(name: str, model: Family, data: DataConfig, objective: Objective | None = None) -> Recipe:
    """Return the recipe of all methods except airbench's."""
    return Recipe(
        name=name,
        model=model,
        data=data,
        optim=OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=ScheduleConfig(kind="one-cycle", peak=0.25, start=0.1),
        objective=objective or Whole(),
        epochs=1,
        batch_size=64,
        precision="auto",
        label_smoothing=0.1,
        checkpoint_steps=200,
    )


def methods(data: DataConfig, width: int = WIDTH) -> dict[str, Method]:
    """Return the methods by name.

    Args:
        width: number of channels in the first group of the widest ResNets. All networks except airbench's scale with
            this width.
    """
    sizes = {(1, width // 2), (1, 2 * width // 3), (1, width), (2, width)}
    msdnet = MSDNet(first=4 * width // 3, growth=width // 2, hidden=16 * width // 3)
    slim = SwitchableResNet(width=width, shares=(0.25, 0.5, 0.75, 1.0))
    small = SwitchableResNet(width=width, sizes=(16, 20, 24, 28, 32))
    paths: Mapping[str, tuple[Family, list[str]]] = {
        "exits": (msdnet, msdnet.path_sets()["exits"]),
        "slimmable": (slim, slim.way_texts()),
        "resolution": (small, small.way_texts()),
    }
    together = {
        name: ByRecipe(name, recipe(f"outside-{name}", model, data, Exits(paths=tuple(texts))))
        for name, (model, texts) in paths.items()
    }
    plain = []
    for blocks, chans in sorted(sizes):
        name = f"{2 + 6 * blocks}x{chans}"
        plain.append(ByRecipe(name, recipe(f"outside-resnet-{name}", ResNet(blocks=(blocks,) * 3, width=chans), data)))
    views = (PLAIN, MIRROR, VIEWS)
    air = ByAirbench("airbench94", AirRecipe(model=AirNet(), steps=1), views)
    narrow = ByAirbench("quarter", AirRecipe(model=AirNet(widths=(16, 64, 64)), steps=1), views)
    return {
        "resnets": Method("independent ResNets, DEPTHxWIDTH", tuple(plain)),
        "exits": Method("MSDNet, its exits trained together", (together["exits"],)),
        "slimmable": Method("a slimmable ResNet, all widths at each step", (together["slimmable"],)),
        "resolution": Method("a ResNet on smaller images, all sizes at each step", (together["resolution"],)),
        "airbench": Method("airbench94 with and without test-time views", (air,)),
        "airbench-quarter": Method("airbench94 at a quarter of its widths", (narrow,)),
    }
