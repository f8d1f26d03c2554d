"""Recipes of FractalNet (Larsson et al., ICLR 2017, §4; Tables 1 to 4).

The optimiser is SGD with momentum, and initial weights are Xavier. The learning rate drops each time that half of the
remaining epochs are over. Each block has a dropout rate. Drop-path is local for half of the mini-batches and global for
the others. All numbers of the training section are missing in our copy of the paper. The values here are from public
transcriptions of the paper, and ``assumed`` lists each of these values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from polypath.families.fractalnet import FractalNet
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath, OnePath, TiedColumns
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

QUOTED = "not legible in our copy of the paper; public transcriptions of the paper give"
DROPOUT = (0.0, 0.1, 0.2, 0.3, 0.4)
CIFAR = ("cifar10", "cifar10+", "cifar10++", "cifar100", "cifar100+", "cifar100++")

ASSUMED = {
    "optim.lr": f"{QUOTED} 0.02",
    "optim.momentum": f"{QUOTED} 0.9",
    "optim.nesterov": "not mentioned: off",
    "optim.weight_decay": "not mentioned: none",
    "schedule.factors": f"{QUOTED} 10",
    "schedule.drops": "their number is not legible: four (epochs 200, 300, 350, 375), as in a public re-implementation",
    "epochs": f"{QUOTED} 400 on CIFAR, 20 on SVHN",
    "batch_size": f"{QUOTED} 100",
    "objective.rate": f"{QUOTED} 0.15",
    "objective.share": "the share of each mode is not legible: half and half, as in public re-implementations",
    "model.dropout": f"{QUOTED} 0, 0.1, 0.2, 0.3, 0.4 for the five blocks",
    "model.dropout_kind": "the text does not say what is dropped: single elements, as in the authors' generator",
    "model.filters": f"{QUOTED} (64, 128, 256, 512, 512)",
    "model.columns": f"{QUOTED} 3 columns (20 layers)",
    "model.init": "Xavier as in Caffe, by fan-in, because the paper's code uses Caffe; Glorot's own: model.init xavier",
    "model.bias": "not stated: no biases; in the authors' generator, convs have biases",
    "model.affine": "not stated: batch-norm with scale and shift; in the authors' generator, it has neither",
    "optim.bias_lr": "not stated: the rate of the weights; the authors' generator has twice this rate and no decay",
    "model.transitions": "growth in each column's first conv gives 33.7M parameters, not the printed 38.6M (see card)",
}

_BASE = Recipe(
    name="fractalnet",
    model=FractalNet(dropout=DROPOUT),
    data=DATA["cifar10"],
    optim=OptimConfig(lr=0.02, momentum=0.9),
    schedule=ScheduleConfig(kind="halving", drops=4),
    objective=DropPath(mode="mixed", rate=0.15, share=0.5),
    epochs=400,
    batch_size=100,
    checkpoint_every=5,
    assumed=ASSUMED,
)


def entries() -> Iterator[Entry]:
    for dataset in (*CIFAR, "svhn"):
        yield from _table_1(dataset)
    yield from _ultra_deep()
    yield Entry(_imagenet(), "Table 2, 34 layers, 10-crop")


def _on(dataset: str, model: str = "fractalnet20", **arguments) -> Recipe:
    arguments = {"dropout": DROPOUT} | arguments
    data = dataclasses.replace(DATA[dataset], normalise="mean")
    changes = {"data": data, "model": model_of(model, dataset, **arguments)}
    notes = {name: reason for name, reason in ASSUMED.items() if name.startswith("model.")}
    if data.augment.pad:
        notes["data.augment.pad"] = f"{QUOTED} offsets of up to 4 pixels"
    if dataset == "svhn":
        changes |= {"epochs": 20, "checkpoint_every": 1}
        notes |= {"epochs": ASSUMED["epochs"], "data.augment": "described for CIFAR only: none on SVHN"}
    return derive(_BASE, f"fractalnet-{dataset}", changes, notes)


def _table_1(dataset: str) -> Iterator[Entry]:
    full = _on(dataset)
    name = f"fractalnet20-{dataset}"
    yield Entry(derive(full, name), "Table 1, FractalNet + dropout/drop-path, and its deepest column (column=3)")
    bare = derive(
        full,
        f"{name}-unregularised",
        {"model.dropout": (0.0,), "objective": Whole()},
        {"model.dropout_kind": None},
    )
    yield Entry(bare, "Table 1, FractalNet without dropout and drop-path")
    deeper = derive(
        _on(dataset, "fractalnet40"),
        f"fractalnet40-{dataset}",
        assumed={
            "model.columns": None,
            "model.transitions": None,
            "model": "the parameter reduction as in SqueezeNet is not described: C = 4 without it, 76M parameters",
        },
    )
    yield Entry(deeper, "Table 1, the 40-layer row")
    if dataset in ("cifar10", "cifar100"):
        printed = derive(
            _on(dataset, "fractalnet20_transition"),
            f"fractalnet20_transition-{dataset}",
            assumed={"model.transitions": "1×1 convs in front of blocks 1 to 4 give the printed 38.6M parameters"},
        )
        yield Entry(printed, "Table 1, with the printed number of parameters")
        tied = derive(
            _on(dataset, own_norms=True, bias=True, affine=False),
            f"{name}-tied",
            {"objective": TiedColumns(rate=0.15), "optim.bias_lr": 2.0, "optim.bias_decay": 0.0},
            {
                "optim.bias_lr": "as in the authors' generator: biases learn at twice the rate",
                "optim.bias_decay": "as in the authors' generator: biases do not decay",
                "objective.rate": ASSUMED["objective.rate"],
                "objective.columns": "no weights are stated: 1, and 1/C for each column, as in the authors' generator",
                "model.own_norms": "as in the authors' generator: separate norms for each column in the tied passes",
                "model.bias": "as in the authors' generator: convs with biases",
                "model.affine": "as in the authors' generator: batch-norm without scale and shift",
            },
        )
        yield Entry(tied, "§3.1: a local sample and all columns on each mini-batch, by weight sharing")


def _ultra_deep() -> Iterator[Entry]:
    """Yield the recipes of Tables 3 and 4: narrow nets of 5·2^(C−1) layers, and plain nets of the same depths."""
    dataset = "cifar100++"
    for columns in range(1, 7):
        depth = 5 * 2 ** (columns - 1)
        model = f"fractalnet_ultra_{depth}"
        notes = {
            "batch_size": f"{QUOTED} 50 for these networks",
            "model.filters": f"{QUOTED} (16, 32, 64, 128, 128)",
            "model.dropout": f"{ASSUMED['model.dropout']}; the paper does not say which experiments "
            "use dropout: all, also those with plain nets",
            "model.columns": None,
            "model.transitions": None,
        }
        deep = derive(_on(dataset, model), f"{model}-{dataset}", {"batch_size": 50}, notes)
        yield Entry(deep, f"Table 3, {depth} layers" + (" and Table 4, its columns" if depth == 40 else ""))
        plain = derive(deep, f"fractalnet_plain_{depth}-{dataset}", {"objective": OnePath(paths=f"column={columns}")})
        place = "Table 4" if depth <= 40 else "§4.2 (160 layers fail, says the paper)"
        yield Entry(plain, f"{place}, a plain net of {depth} layers (the deepest column alone, from scratch)")


def _imagenet() -> Recipe:
    model = model_of("fractalnet34_imagenet", "imagenet")
    changes = {
        "model": model,
        "data": dataclasses.replace(DATA["imagenet"], eval_crops=10),
        "optim.lr": 0.001,
        "schedule": ScheduleConfig(kind="step", at_epochs=(50, 65)),
        "epochs": 70,
        "batch_size": 32,
        "checkpoint_every": 1,
        "checkpoint_steps": 2000,
    }
    notes = {
        "optim.lr": f"{QUOTED} 0.001",
        "schedule": f"{QUOTED} division by 10 at epochs 50 and 65",
        "epochs": f"{QUOTED} 70",
        "batch_size": f"{QUOTED} 32",
        "model.filters": f"{QUOTED} (128, 256, 512, 1024)",
        "model.columns": "2^(C−1) layers per block and 34 in all: 4 columns",
        "model.dropout": "dropout is not mentioned for ImageNet: none",
        "model.dropout_kind": None,
        "model.transitions": None,
        "schedule.factors": None,
        "objective": "drop-path is not mentioned for ImageNet: as on CIFAR",
        "data.augment": "not stated: scale and aspect-ratio crops and mirroring, as for ResNet-34",
        "data.normalise": "not stated: channel means and standard deviations",
    }
    return derive(_BASE, "fractalnet34-imagenet", changes, notes)
