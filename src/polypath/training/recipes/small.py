"""Small recipes, which train in minutes on two CPU cores. They show the behaviour that each paper describes.

``-digits`` recipes train on scikit-learn's 1,797 images of 8×8 pixels, which need no download.

``-cifar10-small`` recipes train on 10,000 images of CIFAR-10 for 12 epochs. Path-wise training takes twice as many
epochs, as in the paper. All 10,000 test images are used, and 1,000 more training images are held out to choose the best
epoch. Training runs in bf16 on processors with bf16 instructions (AVX512_BF16, AMX), which halves the time, and in
float32 on others.

``-cifar10-mini`` networks are half as wide and train on 5,000 images for 10 epochs in float32. Training takes minutes
on one core. These recipes compare path-wise training with whole-net training, both without drop-path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from polypath.data.config import PLUS, DataConfig
from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.fusenet import FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.gunn import Gunn
from polypath.families.onepath import PytorchcvModel
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.families.timm_models import TimmModel
from polypath.training.objectives import Objective, Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import Distil, DropPath, Exits, PathWise, SharedEnsemble, TargetRate, TiedColumns
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import Entry, derive
from polypath.training.schedules import ScheduleConfig

ONE_CYCLE = ScheduleConfig(kind="one-cycle", peak=0.25, start=0.1)
SGD = OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
ADAM = OptimConfig(kind="adam", lr=0.002, weight_decay=0.004, decay="linear")

CRESCENDO = CrescendoNet(widths=(32, 32, 32))
FRACTAL = FractalNet(filters=(32, 64, 128, 128))
PLAIN = PlainNet(depth=11, width=35)  # 91.3M MACs; the CrescendoNet has 89.8M
RECURSIVE = RecursiveResNet(blocks=(2, 3, 3), loops=(1, 2, 3), shortcut="pad")

DIGITS = Recipe(
    name="digits",
    model=replace(CRESCENDO, in_chans=1),
    data=DataConfig(source="digits", validation=200),
    optim=ADAM,
    schedule=ONE_CYCLE,
    objective=DropPath(rate=0.3),
    epochs=30,
    batch_size=64,
    channels_last=True,
    validate_every=10,
    checkpoint_every=10,
)
CIFAR10 = Recipe(
    name="cifar10-small",
    model=CRESCENDO,
    data=DataConfig(source="cifar10", train_images=10_000, validation=1000, augment=PLUS),
    optim=SGD,
    schedule=ONE_CYCLE,
    objective=DropPath(rate=0.3),
    epochs=12,
    batch_size=64,
    precision="auto",
    channels_last=True,
    validate_every=3,
    checkpoint_every=3,
)
MINI = derive(
    CIFAR10,
    "cifar10-mini",
    {
        "model.widths": (16, 16, 16),
        "data.train_images": 5000,
        "objective": Whole(),
        "epochs": 10,
        "precision": "fp32",
        "validate_every": 5,
        "checkpoint_every": 5,
    },
)
PATH_WISE = {"epochs": 24, "objective": PathWise(phase_epochs=1), "validate_every": 4}


def entries() -> Iterator[Entry]:
    yield from _digits()
    yield from _cifar10()
    yield from _variants()
    yield from _mini()


def _digits() -> Iterator[Entry]:
    yield Entry(derive(DIGITS, "crescendonet-digits"), "the recipe that `make demo` trains")
    for name, model, objective in (
        ("plain", PlainNet(depth=11, width=35), Whole()),
        ("fractalnet", FractalNet(filters=(32, 64, 64)), DropPath(mode="mixed", rate=0.15)),
        ("resnet", ResNet(depth=20), Whole()),
        ("dfn_mr", MergeAndRun(depth=14), Whole()),
        ("gunn", Gunn(channels=(48, 64, 80), segments=(4, 4, 4), stem_width=32, last_width=96), Whole()),
        ("drnn", RECURSIVE, TargetRate(target=0.7, weight=2.0)),
    ):
        changes = {"model": replace(model, in_chans=1), "objective": objective, "optim": SGD}
        yield Entry(derive(DIGITS, f"{name}-digits", changes), "another family on the same images")


def _cifar10() -> Iterator[Entry]:
    rows: tuple[tuple[str, Family, Objective, str], ...] = (
        ("crescendonet", CRESCENDO, DropPath(rate=0.3), "the ensemble behaviour of Table II"),
        ("fractalnet", FRACTAL, DropPath(mode="mixed", rate=0.15), "columns and the whole net, as in Table 1"),
        ("plain", PLAIN, Whole(), "a plain net of similar cost"),
        ("resnet", ResNet(depth=20), Whole(), "a ResNet"),
        ("dfn_il", InceptionLike(depth=14), Whole(), "inception-like fusion"),
        ("dfn_mr", MergeAndRun(depth=14), Whole(), "merge-and-run fusion"),
        ("fusenet", FusedNet(depth=14), Whole(), "a fused net of eight routes"),
        ("gunn", Gunn(channels=(48, 64, 80), segments=(4, 4, 4), stem_width=32, last_width=96), Whole(), "a GUNN"),
        ("drnn", RECURSIVE, TargetRate(target=0.7, weight=2.0), "gates that decide how often blocks run"),
        ("timm", TimmModel(model="resnet18"), Whole(), "any timm model, to compare: --model.model NAME"),
        ("pytorchcv", PytorchcvModel(model="resnet20_cifar10"), Whole(), "any pytorchcv model: --model.model NAME"),
    )
    for name, model, objective, purpose in rows:
        yield Entry(derive(CIFAR10, f"{name}-cifar10-small", {"model": model, "objective": objective}), purpose)


def _variants() -> Iterator[Entry]:
    small = {entry.recipe.name.removesuffix("-cifar10-small"): entry.recipe for entry in _cifar10()}

    def variant(family: str, suffix: str, changes: dict, purpose: str) -> Entry:
        return Entry(derive(small[family], f"{family}-cifar10-small-{suffix}", changes), purpose)

    yield variant("crescendonet", "nodroppath", {"objective": Whole()}, "without drop-path, to see its effect")
    yield variant("crescendonet", "pathwise", PATH_WISE, "path-wise training, exact")
    truncated = PATH_WISE | {"objective": PathWise(phase_epochs=1, backward="truncated")}
    yield variant(
        "crescendonet", "pathwise-truncated", truncated, "path-wise training, frozen branches without gradient"
    )
    yield variant(
        "crescendonet",
        "distil",
        {"objective": Distil(paths=("branches=1", "branches=2"))},
        "the whole network teaches branches",
    )
    tied = {"model.own_norms": True, "objective": TiedColumns(rate=0.15)}
    yield variant("fractalnet", "tied", tied, "a local sample and all columns on each mini-batch")
    per_block = {"objective.mode": "one-column-a-block"}
    yield variant("fractalnet", "column-a-block", per_block, "a column for each block instead of a global one")
    yield variant("fractalnet", "per-sample", {"objective.groups": 8}, "eight draws per mini-batch instead of one")
    yield variant(
        "fusenet", "ensemble", {"objective": SharedEnsemble()}, "its routes as an ensemble with shared weights"
    )
    deep = {"model.survival": 0.5, "objective": DropPath(mode="stochastic-depth")}
    yield variant("resnet", "stochastic-depth", deep, "blocks skipped at random in training")
    exits = {"model.exits": (1, 2), "objective": Exits()}
    yield variant("resnet", "exits", exits, "additional heads after its first two stages, trained together")
    yield variant("gunn", "simultaneous", {"model.order": "simultaneous"}, "SUNN: the same units, updated at once")
    cycles = {"schedule": ScheduleConfig(kind="cyclic-cosine", cycles=3)}
    yield variant("gunn", "snapshots", cycles, "three snapshots of one run, averaged")
    yield variant("drnn", "ungated", {"model.gates": "none", "objective": Whole()}, "without gates: all loops run")


def _mini() -> Iterator[Entry]:
    name = "crescendonet-cifar10-mini"
    yield Entry(derive(MINI, name), "whole-net training, the baseline of path-wise training")
    exact = PathWise(phase_epochs=1)
    for objective, suffix in ((exact, ""), (replace(exact, backward="truncated"), "-truncated")):
        changes = {"epochs": 20, "objective": objective}
        purpose = f"path-wise training, {objective.backward}: twice the epochs, a phase is one epoch"
        yield Entry(derive(MINI, f"{name}-pathwise{suffix}", changes), purpose)
