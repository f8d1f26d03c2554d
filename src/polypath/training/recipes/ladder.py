"""Recipes of a few TFLOP each, for ``polypath ladder``: what paths are worth where there are two CPU cores.

``-ladder`` train by drop-path, as the papers do. ``-sandwich`` train the same networks on the same images for as many
epochs by the sandwich rule with in-place distillation (ours, no paper's): the other paths learn on so many images of a
mini-batch that all costs at most three quarters of what the paths named below cost alone.

All of CIFAR-10's 45,000 training images for three or four epochs, so that three seeds of the network and of all its
twins cost 0.57 PFLOP for the three together (counted: 0.21, 0.17 and 0.18). So short a run needs no crops.
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
    validate_every=4,  # the last epoch only: the held-out images choose paths, not epochs
    checkpoint_steps=200,
)
CRESCENDO = CrescendoNet(widths=(12, 24, 48), scale=3)
RESNET = ResNet(blocks=(2, 2, 2), width=12, survival=0.5)


def entries() -> Iterator[Entry]:
    rows: tuple[tuple[Family, Objective, int, str], ...] = (
        (CRESCENDO, DropPath(rate=0.3), 3, "what sets of branches are worth: --paths branches=1 --paths branches=1,2"),
        (RESNET, DropPath(mode="stochastic-depth"), 4, "what a lesser depth is worth: --paths units=1"),
    )
    yield Entry(FRACTAL, "what columns are worth: --paths column=1 --paths column=2")
    for model, objective, epochs, purpose in rows:
        changes = {"model": model, "objective": objective, "epochs": epochs}
        yield Entry(derive(FRACTAL, f"{model.family}-cifar10-ladder", changes), purpose)
    sandwiches: tuple[tuple[Family, Sandwich, int, str], ...] = (
        (FRACTAL.model, taught(0.5, "column=1", "column=2"), 3, "its columns"),
        (CRESCENDO, taught(0.28, "branches=1", "branches=1,2"), 3, "its branches"),
        (replace(RESNET, survival=1.0), taught(0.21, "units=1"), 4, "a lesser depth"),
    )
    for model, objective, epochs, students in sandwiches:
        changes = {"model": model, "objective": objective, "epochs": epochs}
        purpose = f"the whole teaches {students}: {' '.join(f'--paths {path}' for path in objective.paths)}"
        yield Entry(derive(FRACTAL, f"{model.family}-cifar10-sandwich", changes), purpose)


def taught(images: float, *paths: str) -> Sandwich:
    """Paths that learn half by labels and half by the whole, on this share of the images."""
    return Sandwich(paths=paths, images=images, labels=0.5)
