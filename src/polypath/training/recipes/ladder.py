"""Recipes for ``polypath ladder``, which compares paths with the same paths trained alone (twins). Training is short
enough for two CPU cores.

``-ladder`` recipes train with drop-path, as in the papers. ``-sandwich`` recipes train the same networks on the same
images for the same number of epochs, but with the sandwich rule and in-place distillation. Their settings are not from
the papers. In ``-sandwich`` recipes, paths other than the whole network learn on a share of each mini-batch. The share
is so small that training costs at most three quarters as much as training the same paths as separate networks.

The recipes train on 45,000 images of CIFAR-10 for three or four epochs. Three seeds of a network and all its twins cost
0.21, 0.17 and 0.18 PFLOP (counted) for the three families, and 0.57 in total. Runs are so short that they need no
random crops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.training.objectives import Objective
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import Entry, derive
from polypath.training.recipes.small import ONE_CYCLE, SGD
from polypath.training.sandwich import Sandwich

FRACTAL = Recipe(
    name="fractalnet-cifar10-ladder",
    model=FractalNet(filters=(16, 32, 64, 128), columns=2, init="xavier"),
    data=DataConfig(source="cifar10", validation=5000, augment=AugmentConfig(mirror=True)),
    optim=SGD,
    schedule=ONE_CYCLE,
    objective=DropPath(mode="mixed", rate=0.15),
    epochs=3,
    batch_size=64,
    precision="auto",
    channels_last=True,
    label_smoothing=0.1,
    validate_every=4,  # only the last epoch: held-out images are used to choose paths, not epochs
    checkpoint_steps=200,
)
CRESCENDO = CrescendoNet(widths=(12, 24, 48), scale=3)
RESNET = ResNet(blocks=(2, 2, 2), width=12, survival=0.5)


def entries() -> Iterator[Entry]:
    rows: tuple[tuple[Family, Objective, int, str], ...] = (
        (CRESCENDO, DropPath(rate=0.3), 3, "compare sets of branches: --paths branches=1 --paths branches=1,2"),
        (RESNET, DropPath(mode="stochastic-depth"), 4, "compare a lower depth: --paths units=1"),
    )
    yield Entry(FRACTAL, "compare columns: --paths column=1 --paths column=2")
    for model, objective, epochs, purpose in rows:
        changes = {"model": model, "objective": objective, "epochs": epochs}
        yield Entry(derive(FRACTAL, f"{model.family}-cifar10-ladder", changes), purpose)
    sandwiches: tuple[tuple[Family, Sandwich, int, str], ...] = (
        (FRACTAL.model, taught(0.5, "column=1", "column=2"), 3, "its columns"),
        (CRESCENDO, taught(0.28, "branches=1", "branches=1,2"), 3, "its branches"),
        (replace(RESNET, survival=1.0), taught(0.21, "units=1"), 4, "a lower depth"),
    )
    for model, objective, epochs, students in sandwiches:
        changes = {"model": model, "objective": objective, "epochs": epochs}
        purpose = f"the whole network teaches {students}: {' '.join(f'--paths {path}' for path in objective.paths)}"
        yield Entry(derive(FRACTAL, f"{model.family}-cifar10-sandwich", changes), purpose)


def taught(images: float, *paths: str) -> Sandwich:
    """Return an objective that trains ``paths`` on the share ``images`` of the images, half on the labels and half on
    the outputs of the whole network."""
    return Sandwich(paths=paths, images=images, labels=0.5)
