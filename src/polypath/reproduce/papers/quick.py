"""The ``small`` runs of DFN, GUNN and DRNN. They have fewer images and epochs than others, as there are many arms."""

from __future__ import annotations

from typing import Any

from polypath.data.config import AugmentConfig
from polypath.families.base import Family
from polypath.reproduce.scales import small
from polypath.training.objectives import Objective
from polypath.training.recipe import Recipe

EPOCHS = 6
SIDE = 16
TRAIN_IMAGES, TEST_IMAGES = 3000, 3000
TRACED = {"trace_test": True, "validate_every": 1}


def quick(model: Family, objective: Objective | None = None, *, side: int = SIDE, **changes: Any) -> Recipe:
    """Return a recipe that trains for half a minute on one core, on CIFAR-10 at ``side`` pixels. Other fields are as in
    :func:`~polypath.reproduce.scales.small`."""
    fields: dict[str, Any] = {
        "epochs": EPOCHS,
        "checkpoint_every": 100,
        "data__train_images": TRAIN_IMAGES,
        "data__test_images": TEST_IMAGES,
        "data__size": side,
        "data__augment": AugmentConfig(pad=side // 8, mirror=True),
    }
    return small(model, objective, **(fields | changes))
