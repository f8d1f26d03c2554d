"""Recipes of GUNN (Qiao et al., ICML 2018, §6.2; Tables 1 to 5).

The optimiser is SGD with momentum 0.9 and weight decay 1e-4. On CIFAR, batches have 64 images, training takes 300
epochs, and the augmentation is "mirroring and shifting". The learning rate is divided by 10 at epochs 150 and 225. On
ImageNet, batches have 256 images, and the schedule is DenseNet's. Ensembles are six snapshots of one run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from polypath.data.config import IMAGENET_GUNN
from polypath.families.gunn import Gunn
from polypath.training.optim import OptimConfig
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

CIFAR = {
    "gunn15": "Tables 1, 3, 5",
    "gunn24": "Tables 1, 3, 5",
    "gunn15_nores": "Table 5, without residual learning",
    "sunn15": "Table 5, simultaneous updates",
    "sunn24": "Table 5, simultaneous updates",
}
IMAGENET = {
    "gunn18_imagenet": "Tables 2, 4",
    "wide_gunn18_imagenet": "Tables 2, 4",
    "sunn18_imagenet": "Table 4, simultaneous updates",
}
BATCH_NORM = (
    "the paper split batches over {}, each with the statistics of its {} images; "
    "here, the statistics are those of the whole batch"
)

_BASE = Recipe(
    name="gunn",
    model=Gunn(),
    data=DATA["cifar10+"],
    optim=OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=ScheduleConfig(kind="step", at_epochs=(150, 225)),
    epochs=300,
    batch_size=64,
    checkpoint_every=5,
    assumed={
        "optim.nesterov": "not mentioned: on, as in the authors' released code",
        "optim.decay": "the paper does not state which parameters are decayed: all, as in the released code",
        "data.augment": 'details of "mirroring and shifting" are not stated: pad by 4, crop, mirror half of the images',
        "model.init": "n of N(0, sqrt(2/n)) is not defined: fan-out, as in the authors' released code",
        "parallel.batch_norm": BATCH_NORM.format("4 GPUs", 16) + " (parallel.batch_norm ghost)",
    },
)


def entries() -> Iterator[Entry]:
    for classes in ("cifar10", "cifar100"):
        dataset = f"{classes}+"  # the paper has only the augmented setting, without a "+"
        for model, row in CIFAR.items():
            changes = {"data": DATA[dataset], "model": model_of(model, dataset)}
            yield Entry(derive(_BASE, f"{model}-{classes}", changes, _kept("data.augment")), row)
        yield _snapshots(classes, dataset)
    for model, row in IMAGENET.items():
        yield Entry(_imagenet(model), row)


def _snapshots(classes: str, dataset: str) -> Entry:
    changes = {
        "data": DATA[dataset],
        "model": model_of("gunn24", dataset),
        "schedule": ScheduleConfig(kind="cyclic-cosine", cycles=6),
    }
    notes = _kept("data.augment") | {
        "schedule": "the paper does not describe the cycles: six equal cosines, one snapshot each (Huang et al. 2017)",
        "epochs": "not stated for the ensemble: 300, as for a single model",
        "optim.lr": "the highest rate of the cycles is not stated: as for a single model",
    }
    return Entry(
        derive(_BASE, f"gunn24-{classes}-snapshots", changes, notes), "Table 3, GUNN-24 Ensemble (six snapshots)"
    )


def _imagenet(model: str) -> Recipe:
    changes = {
        "data": dataclasses.replace(DATA["imagenet"], augment=IMAGENET_GUNN),
        "model": model_of(model, "imagenet"),
        "schedule": ScheduleConfig(kind="step", at_epochs=(30, 60, 90), factors=(0.1, 0.1, 0.01)),
        "epochs": 120,
        "batch_size": 256,
        "checkpoint_every": 1,
        "checkpoint_steps": 2000,
    }
    notes = {
        "schedule": '"following the schedule in DenseNet", without details: as in the authors\' released code',
        "epochs": "not stated: 120, as in the authors' released command",
        "optim.weight_decay": "not stated for ImageNet: as on CIFAR",
        "optim.momentum": "not stated for ImageNet: as on CIFAR",
        "data.augment": 'as in "the state-of-the-art architectures", which differ: scale and aspect-ratio crops, '
        "jitter 0.4, lighting 0.1 and mirroring, as in the authors' released code",
        "parallel.batch_norm": BATCH_NORM.format("8 GPUs", 32),
    }
    return derive(_BASE, f"{model.removesuffix('_imagenet')}-imagenet", changes, notes)


def _kept(*fields: str) -> dict[str, str | None]:
    """Return the base recipe's reasons for ``fields``. The reasons also hold for the new values of these fields."""
    return {field: _BASE.assumed[field] for field in fields}
