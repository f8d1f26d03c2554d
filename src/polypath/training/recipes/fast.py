"""Recipes for small budgets: small networks that train with drop-path, as in the papers, and with techniques for short
training. The recipes are not from a paper. They are also the recipes of ``polypath ladder``, which compares paths with
the same paths trained alone.

Muon optimises the convs, and SGD with Nesterov momentum optimises the other parameters. The schedule is one-cycle,
batches have 256 images, and labels are smoothed. Each image is flipped in every second epoch, and shifted by up to two
pixels with reflection. Networks have a whitening layer and are initialised near the identity. These techniques are from
Jordan 2024 (https://github.com/KellerJordan/cifar10-airbench); the networks, objectives and learning rates are not.

Each technique has separate fields. :data:`WITHOUT` contains the values of these fields without the technique.
``python -m benchmarks ablate RECIPE`` removes and adds the techniques one by one.

``fractalnet-cifar10-bundle`` trains the network of the bundle that comes with the package. This network is wider and is
trained with the sandwich rule. The whole network learns on each mini-batch. The cheapest path and a path drawn by local
drop-path learn on a share of the images (``objective.images``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.training.objectives import Objective
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import Entry, derive
from polypath.training.recipes.small import ONE_CYCLE
from polypath.training.sandwich import Sandwich
from polypath.training.schedules import ScheduleConfig

MUON = OptimConfig(
    kind="muon",
    lr=0.02,
    rest_lr=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    decay="matrices",
    scaling="sqrt",
    per_images=64,
)
WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "muon": {"optim.kind": "sgd", "optim.lr": 0.1, "optim.rest_lr": 0.0},
    "nesterov": {"optim.nesterov": False},
    "one-cycle": {"schedule": ScheduleConfig(kind="step", at_fractions=(1 / 2, 3 / 4))},
    "large batches": {"batch_size": 64},
    "label smoothing": {"label_smoothing": 0.0},
    "alternating flips": {"data.augment.alternate": False},
    "shifts": {"data.augment.pad": 0},
    "whitening": {"model.whitening": 0},
    "identity start": {"model.start": "drawn"},
    "bf16": {"precision": "fp32"},
}
"""Maps each technique to the field values of a recipe without this technique. Without Muon, SGD optimises all
weights."""

FRACTAL = FractalNet(filters=(16, 32, 64, 128), columns=2, init="xavier", whitening=12, start="identity")
CRESCENDO = CrescendoNet(widths=(12, 24, 64), scale=3, whitening=12, start="identity")
# Drawn, since branches that start at 0 learn slowly with Muon: the training error after an epoch was 62%, not 54%.
RESNET = ResNet(blocks=(1, 1, 2, 2), width=16, survival=0.95, whitening=12)

FRACTAL_FAST = Recipe(
    name="fractalnet-cifar10-fast",
    model=FRACTAL,
    data=DataConfig(
        source="cifar10", validation=5000, augment=AugmentConfig(pad=2, pad_mode="reflect", mirror=True, alternate=True)
    ),
    optim=MUON,
    schedule=ONE_CYCLE,
    objective=DropPath(mode="mixed", rate=0.15),
    epochs=5,
    batch_size=256,
    precision="auto",
    channels_last=True,
    label_smoothing=0.2,
    validate_every=1000,  # only the last epoch: held-out images are used to choose paths, not epochs
    checkpoint_steps=200,
)

BUNDLE = derive(
    FRACTAL_FAST,
    "fractalnet-cifar10-bundle",
    {
        "model": FractalNet(filters=(24, 96, 192, 224), columns=2, init="xavier", whitening=12, start="identity"),
        "objective": Sandwich(paths=("column=1",), draw="local", images=0.35, labels=0.5),
        "epochs": 7,
    },
)


def entries() -> Iterator[Entry]:
    yield Entry(BUNDLE, "the bundle in this package; its paths are chosen and calibrated on 5,000 held-out images")
    rows: tuple[tuple[Family, Objective, str], ...] = (
        (FRACTAL, FRACTAL_FAST.objective, "--paths column=1 --paths column=2"),
        (CRESCENDO, DropPath(rate=0.1), "--paths branches=1 --paths branches=1,2"),
        (RESNET, DropPath(mode="stochastic-depth"), "--paths units=1"),
    )
    for model, objective, paths in rows:
        changes = {"model": model, "objective": objective}
        yield Entry(derive(FRACTAL_FAST, f"{model.family}-cifar10-fast", changes), f"{ABOUT}; a ladder: {paths}")


ABOUT = "small budgets: Muon, one cycle, alternating flips, whitening, initialisation near the identity"
