"""Modern recipes: the networks of the papers with later training techniques. The settings are not from a paper.

The recipes use a cosine schedule with warm-up, label smoothing, mixup and cutmix (one of them per batch), an
exponential moving average of the weights, bf16 and channels-last. Some training images are held out to choose the best
epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from polypath.families.crescendonet import CrescendoNet
from polypath.training.objectives import Objective, Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath, TargetRate
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

MIXED = DropPath(mode="mixed", rate=0.15, share=0.5)
CIFAR: dict[str, Objective] = {
    "crescendonet_128": DropPath(rate=0.3),
    "crescendonet_512": DropPath(rate=0.3),
    "fractalnet20": MIXED,
    "resnet110_cifar": Whole(),
    "dfn_mr56": Whole(),
    "gunn15": Whole(),
    "gunn24": Whole(),
    "dr_resnet74_cifar": TargetRate(target=0.7, weight=2.0),
}
IMAGENET: dict[str, Objective] = {
    "fractalnet34_imagenet": MIXED,
    "fusenet_resnet50_imagenet": Whole(),
    "dfn_mr_imagenet": Whole(),
    "gunn18_imagenet": Whole(),
    "dr_resnet53_imagenet": TargetRate(target=0.7, weight=1.0),
}

_CIFAR = Recipe(
    name="modern-cifar",
    model=CrescendoNet(),
    data=replace(DATA["cifar10+"], validation=5000),
    optim=OptimConfig(lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="matrices"),
    schedule=ScheduleConfig(kind="cosine", warmup_epochs=5),
    epochs=200,
    batch_size=256,
    precision="bf16",
    channels_last=True,
    label_smoothing=0.1,
    mixup=0.2,
    cutmix=1.0,
    ema=0.999,
    recalibrate=2000,
    validate_every=5,
    checkpoint_every=5,
)
_IMAGENET = derive(
    _CIFAR,
    "modern-imagenet",
    {
        "data": replace(DATA["imagenet"], validation=10_000),
        "optim.lr": 0.4,
        "optim.weight_decay": 5e-5,
        "epochs": 150,
        "batch_size": 1024,
        "ema": 0.9998,
        "validate_every": 1,
        "checkpoint_every": 1,
        "checkpoint_steps": 500,
    },
)


def entries() -> Iterator[Entry]:
    for classes in ("cifar10", "cifar100"):
        for model, objective in CIFAR.items():
            data = replace(DATA[f"{classes}+"], validation=5000)
            changes = {"data": data, "model": model_of(model, classes), "objective": objective}
            yield Entry(derive(_CIFAR, f"{model.removesuffix('_cifar')}-{classes}-modern", changes), ABOUT)
    for model, objective in IMAGENET.items():
        changes = {"model": model_of(model, "imagenet"), "objective": objective}
        yield Entry(derive(_IMAGENET, f"{model.removesuffix('_imagenet')}-imagenet-modern", changes), ABOUT)


ABOUT = "cosine, label smoothing, mixup and cutmix, moving average, bf16"
