"""Recipes of deeply-fused nets (Zhao et al. 2016, §6.2 and §6.4, Appendix A.1; Tables 1 to 7, Figures 2, 4, 5).

On CIFAR and SVHN, the optimiser is SGD with Nesterov momentum 0.9 and weight decay 1e-4. Batches of 64 images are split
over two GPUs, and training takes 400 epochs (40 on SVHN). The learning rate is divided by 10 at 1/2, 3/4 and 7/8 of the
run. On ImageNet, batches have 256 images, training takes 100 epochs, and the learning rate is divided by 10 every 30
epochs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from polypath.data.config import IMAGENET_RESNET
from polypath.families.fusenet import TABLE_1
from polypath.families.resnet import TABLE_4, ResNet
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import OnePath, SharedEnsemble
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

ROUTES = ("LLL", "RLL", "LRL", "LLR", "RRL", "RLR", "LRR", "RRR")
SHARING = (26, 38, 50, 62, 74, 98, 110)
"""Depths of the ensembles of Tables 2 and 3 and Figure 5, with and without weight sharing."""

_BASE = Recipe(
    name="dfn",
    model=ResNet(depth=26),
    data=DATA["cifar10+"],
    optim=OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=ScheduleConfig(kind="step", at_fractions=(1 / 2, 3 / 4, 7 / 8)),
    epochs=400,
    batch_size=64,
    checkpoint_every=5,
    assumed={
        "optim.decay": "the paper does not state which parameters are decayed: all",
        "model.init": '"initialized as in" He et al. 2015, which allows fan-in and fan-out: fan-in, '
        "as in its Eq. 10 and in the released code",
        "model.norm_eps": "not stated: PyTorch's 1e-5; the released code has 2e-5",
        "model.norm_momentum": "not stated: 0.1, which is 0.9 in MXNet, as in one revision of the released code; "
        "another revision has 0.99, which is 0.01 here",
        "parallel.batch_norm": "the paper split 64 images over two GPUs, each with the statistics of its 32; "
        "here, the statistics are those of the whole batch (as in the paper: parallel.batch_norm ghost)",
    },
)
_SVHN = {
    "data.augment": "not stated: none",
    "data.normalise": "not stated: as on CIFAR, channel means and standard deviations",
    "data.validation": "the paper holds out 400 training images per class and does not state their use: for choices",
    "data.validation_extra": "the same for 200 images per class of the extra set",
}


def entries() -> Iterator[Entry]:
    for dataset in ("cifar10", "cifar100", "svhn"):
        yield from _tables_4_and_5(dataset)
    yield from _ensembles()
    yield from _imagenet()


def _on(dataset: str, model: str, name: str) -> Recipe:
    changes: dict[str, Any]
    if dataset == "svhn":
        changes = {"data": DATA["svhn-held-out"], "epochs": 40, "checkpoint_every": 1}
    else:
        changes = {"data": DATA[f"{dataset}+"]}
    changes |= {"model": model_of(model, dataset)}
    return derive(_BASE, name, changes, _SVHN if dataset == "svhn" else {})


def _tables_4_and_5(dataset: str) -> Iterator[Entry]:
    for depth in TABLE_4:
        half = depth // 2 + 1
        for model, row in (
            (f"plain{depth}_cifar", "plain"),
            (f"resnet{depth}_cifar", "ResNet"),
            (f"dfn_il{half}", "DFN-IL"),
            (f"dfn_mr{half}", "DFN-MR"),
        ):
            if row == "plain" and dataset != "cifar10":
                continue
            name = f"{model.removesuffix('_cifar')}-{dataset}"
            yield Entry(_on(dataset, model, name), f"Table 4, {row} of the {depth}-layer row")
    for number in (1, 2, 3):
        yield Entry(_on(dataset, f"dfn_mr{number}", f"dfn_mr{number}-{dataset}"), f"Table 5, DFN-MR{number}")


def _ensembles() -> Iterator[Entry]:
    """Yield the recipes of §3 and §4, on CIFAR-10: fused nets, and ensembles of their routes."""
    for depth in TABLE_1:
        name = f"fusenet_nf3_{depth}-cifar10"
        fused = _on("cifar10", f"fusenet_nf3_{depth}", name)
        yield Entry(fused, "Table 1, the fused net (tandem ensemble)")
        routes = tuple(f"route={route}" for route in ROUTES)
        eight = derive(fused, f"{name}-ensemble", {"objective": SharedEnsemble(routes=routes)})
        yield Entry(eight, "Tables 1 to 3 and Figure 5, the ensemble of eight routes with shared weights")
        if depth in SHARING:
            seven = derive(eight, f"{name}-ensemble7", {"objective.routes": routes[:-1]})
            yield Entry(seven, "Figure 5, Ensemble-7: without the deepest route")
            for route in ROUTES:
                alone = derive(fused, f"{name}-{route}", {"objective": OnePath(paths=f"route={route}")})
                yield Entry(alone, f"Tables 2 and 3, member {route} of the ensemble without weight sharing")
    for depth, fusions in itertools.product(range(20, 111, 6), (3, 6)):
        model = f"fusenet_nf{fusions}_{depth}"
        if fusions == 6 or depth not in TABLE_1:
            yield Entry(_on("cifar10", model, f"{model}-cifar10"), f"Figure 4, N_f{fusions} of depth {depth}")
    for depth in (14, *range(20, 111, 6)):
        for kind in ("plain", "resnet") if depth > 14 else ("plain",):
            if depth not in TABLE_4:
                model = f"{kind}{depth}_cifar"
                yield Entry(
                    _on("cifar10", model, f"{kind}{depth}-cifar10"), f"Figures 2 and 4, {kind} of depth {depth}"
                )


def _imagenet() -> Iterator[Entry]:
    base = derive(
        _BASE,
        "dfn-imagenet",
        {
            "data": dataclasses.replace(DATA["imagenet"], augment=IMAGENET_RESNET),
            "optim.nesterov": False,
            "schedule": ScheduleConfig(kind="step", every_epochs=30),
            "epochs": 100,
            "batch_size": 256,
            "checkpoint_every": 1,
            "checkpoint_steps": 2000,
        },
        {
            "optim.nesterov": '"we follow [8] and use SGD"; Nesterov momentum is not mentioned: off',
            "data.augment": '"the same data augmentation as in [8]" (ResNet): shorter side from 256 to 480, mirroring, '
            "AlexNet's lighting; the released code also changes aspect ratio, hue, saturation and lightness",
            "parallel.batch_norm": "the paper split batches over 8 GPUs, each with the statistics of its 32 images; "
            "here, the statistics are those of the whole batch",
        },
    )
    for model, row in (("fusenet_resnet101_imagenet", "ResNet-101"), ("dfn_mr_imagenet", "DFN-MR (2, 2, 8, 2)")):
        recipe = derive(base, _plain(model), {"model": model_of(model, "imagenet")})
        yield Entry(recipe, f"Table 6, {row}")
    slower = {"schedule": ScheduleConfig(kind="step", every_epochs=10, factors=(0.5,))}
    notes = {
        "epochs": "the number of epochs is not stated: 100, as in Table 6",
        "data.augment": "not stated for these networks: ResNet's augmentation, as in Table 6",
        "parallel.batch_norm": "the paper split batches over 4 GPUs, each with the statistics of its 64 images; "
        "here, the statistics are those of the whole batch",
    }
    for model, row in (
        ("fusenet_resnet50_imagenet", "ResNet-50"),
        ("dfn1_imagenet", "DFN1 (a candidate: its figure is lost)"),
        ("dfn2_imagenet", "DFN2 (a candidate: its figure is lost)"),
    ):
        recipe = derive(base, _plain(model), slower | {"model": model_of(model, "imagenet")}, notes)
        yield Entry(recipe, f"Table 7, {row}")


def _plain(model: str) -> str:
    return f"{model.removesuffix('_imagenet')}-imagenet"
