"""Recipes of dynamic recursive nets (Guo et al., CVPR 2019, §4; Tables 1 to 3, Fig. 6) and of the paper's baselines:
ResNets, MobileNetV2 and ConvNet-AIG, which is the special case of a single loop.

On CIFAR, the optimiser is SGD with weight decay 5e-4, batches have 256 images, training takes 350 epochs, and the
target rate is 0.7. The learning rate is divided by 10 at epochs 150 and 250.

On ImageNet, the weight decay is 1e-4, training takes 100 epochs, and the learning rate is divided by 10 every 30
epochs. The target rate is 0.7 for the counterparts of ResNet-101, 0.8 for those of ResNet-50 and 0.9 for those of
MobileNetV2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from polypath.data.config import IMAGENET_PHOTOMETRIC
from polypath.families.recursive import RecursiveResNet
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import TargetRate
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

GATES = {
    "objective.weight": "λ of the target-rate loss is not stated: {}, as in ConvNet-AIG on {}",
    "objective.over": "not stated: among the samples that reach the gate, as only then 0.7 gives 11.921 expected loops",
    "model.gates": "the paper does not state which blocks have gates: the recursive ones",
    "model.first_loop": "not stated: a gate is before every loop",
}

_CIFAR = Recipe(
    name="drnn",
    model=RecursiveResNet(),
    data=DATA["cifar10+"],
    optim=OptimConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
    schedule=ScheduleConfig(kind="step", at_epochs=(150, 250)),
    objective=TargetRate(target=0.7, weight=2.0),
    epochs=350,
    batch_size=256,
    checkpoint_every=5,
    assumed={
        "optim.nesterov": '"a similar training scheme as" ResNet\'s; Nesterov momentum is not mentioned: off',
        "optim.decay": "the paper does not state which parameters are decayed: all",
        "data.normalise": "not stated: channel means and standard deviations",
        "model.init": "not stated: He et al. 2015 by fan-out, also for the networks in comparisons",
        "model.shortcut": "not stated: shortcuts without parameters, which fit the printed sizes",
        "model.gate_open": "stated for ImageNet only: 85%, as on ImageNet",
        **{field: reason.format(2, "CIFAR") for field, reason in GATES.items()},
    },
)
_IMAGENET = derive(
    _CIFAR,
    "drnn-imagenet",
    {
        "data": dataclasses.replace(DATA["imagenet"], augment=IMAGENET_PHOTOMETRIC, resize="squash"),
        "optim.weight_decay": 1e-4,
        "schedule": ScheduleConfig(kind="step", every_epochs=30),
        "objective.weight": 1.0,
        "epochs": 100,
        "checkpoint_every": 1,
        "checkpoint_steps": 2000,
    },
    {
        "batch_size": "not stated for ImageNet: 256, as on CIFAR and for ResNets",
        "data.resize": '"rescaled to 256 × 256" is taken literally, so the aspect ratio is not kept',
        "data.normalise": "not stated: channel means and standard deviations",
        "objective.weight": GATES["objective.weight"].format(1, "ImageNet"),
        "model.shortcut": None,
        "model.gate_open": None,
    },
)
TARGETS = {
    "dr_resnet65": (0.7,),
    "dr_resnet53": (0.7, 0.65, 0.6),
    "dr_resnet47": (0.7,),
    "dr_resnet44": (0.7,),
    "dr_resnet35": (0.8,),
}
ALL_GATED = "gates on all blocks, as in ConvNet-AIG"
NOT_PRINTED = "the baseline's target rate is not printed: {}"


def entries() -> Iterator[Entry]:
    yield from _cifar()
    yield from _resnets()
    yield from _recursion()
    yield from _mobile()


def _cifar() -> Iterator[Entry]:
    for depth, loops in ((74, 2), (66, 3), (58, 4), (54, 5), (40, 2), (32, 4), (16, 2)):
        model = f"dr_resnet{depth}_cifar"
        yield Entry(_gated(_CIFAR, model, f"dr_resnet{depth}-cifar10"), f"Table 1, DR-Res {depth} (l = {loops})")
    aig = _gated(_CIFAR, "aig_resnet110_cifar", "aig_resnet110-cifar10")
    notes = {"model.gates": ALL_GATED, "objective.target": NOT_PRINTED.format("0.7, as for the other networks")}
    yield Entry(derive(aig, aig.name, assumed=notes), "Table 1, AIG-ResNet 110")
    for depth in (110, 56, 20):
        yield Entry(_plain(_CIFAR, f"resnet{depth}_cifar", f"resnet{depth}-cifar10-drnn"), f"Table 1, ResNet-{depth}")


def _resnets() -> Iterator[Entry]:
    for name, targets in TARGETS.items():
        for target in targets:
            recipe = _gated(_IMAGENET, f"{name}_imagenet", f"{name}-imagenet", target)
            if target != targets[0]:
                recipe = derive(recipe, f"{name}-imagenet-t{round(100 * target)}")
            yield Entry(recipe, f"Table 2, t = {target}")
    for depth, target in ((50, 0.8), (101, 0.7)):
        aig = _gated(_IMAGENET, f"aig_resnet{depth}_imagenet", f"aig_resnet{depth}-imagenet", target)
        notes = {"model.gates": ALL_GATED, "objective.target": NOT_PRINTED.format(f"{target}, as for its counterparts")}
        yield Entry(derive(aig, aig.name, assumed=notes), f"Table 2, AIG-ResNet-{depth}")
        plain = _plain(_IMAGENET, f"fusenet_resnet{depth}_imagenet", f"fusenet_resnet{depth}-imagenet-drnn")
        v1 = derive(plain, plain.name, {"model.stride_at": "1x1"})
        yield Entry(v1, f"Table 2, ResNet-{depth} (stride on the first 1×1, which gives the printed GFLOPs)")


def _recursion() -> Iterator[Entry]:
    """Yield the recipes of Table 3 and Figure 6: ablations of recursion."""
    yield Entry(
        _gated(_IMAGENET, "dr_resnet53_lvbn_imagenet", "dr_resnet53_lvbn-imagenet"), "Table 3, L and G without I"
    )
    shared = _plain(_IMAGENET, "r_resnet53_imagenet", "r_resnet53-imagenet")
    slower = derive(
        shared, shared.name, {"optim.lr": 0.01}, {"optim.weight_decay": "not stated for this run: as in the other runs"}
    )
    yield Entry(slower, "Table 3 and Figure 6, naive recursion (which fails, says the paper)")
    lvbn = _plain(_IMAGENET, "r_resnet53_lvbn_imagenet", "r_resnet53_lvbn-imagenet")
    yield Entry(lvbn, "Table 3 and Figure 6, LVBN without gates")
    longer = {
        "optim.lr": 0.01,
        "optim.weight_decay": 5e-4,
        "schedule": ScheduleConfig(kind="step", at_epochs=(100, 130, 160)),
        "epochs": 180,
    }
    yield Entry(derive(lvbn, "r_resnet53_lvbn-imagenet-longer", longer), "Table 3, R-ResNet 53*")


def _mobile() -> Iterator[Entry]:
    base = derive(
        _IMAGENET,
        "mobilenetv2",
        {"optim.lr": 0.01, "schedule": ScheduleConfig(kind="step", at_epochs=(200, 300)), "epochs": 400},
    )
    gated = _gated(base, "dr_mobilenetv2", "dr_mobilenetv2-imagenet", 0.9)
    yield Entry(gated, "Table 2, DR-MobileNetV2")
    yield Entry(_plain(base, "mobilenetv2_base", "mobilenetv2_base-imagenet"), "Table 2, MobileNetV2")


def _gated(base: Recipe, model: str, name: str, target: float = 0.7) -> Recipe:
    dataset = "cifar10" if base is _CIFAR else "imagenet"
    return derive(base, name, {"model": model_of(model, dataset), "objective.target": target})


def _plain(base: Recipe, model: str, name: str) -> Recipe:
    """Return the recipe of the same training without gates, with the same weight initialisation."""
    dataset = "cifar10" if base is _CIFAR else "imagenet"
    none: dict[str, str | None] = dict.fromkeys(("model.gates", "model.first_loop", "model.gate_open"))
    return derive(base, name, {"model": model_of(model, dataset, init="he"), "objective": Whole()}, none)
