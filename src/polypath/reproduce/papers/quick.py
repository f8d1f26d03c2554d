"""The ``small`` runs of DFN, GUNN and DRNN: fewer images and epochs than others, as their tables have many arms."""

from __future__ import annotations

from typing import Any

from polypath.families.base import Family
from polypath.reproduce.scales import small
from polypath.training.objectives import Objective
from polypath.training.recipe import Recipe

EPOCHS = 5
TRAIN_IMAGES, TEST_IMAGES, BATCH = 2000, 2000, 32
TRACED = {"trace_test": True, "validate_every": 1}


def quick(model: Family, objective: Objective | None = None, **changes: Any) -> Recipe:
    """A run of under a minute of one core on CIFAR-10 at 16×16 pixels; other fields as :func:`small` takes them."""
    fields: dict[str, Any] = {
        "epochs": EPOCHS, "data__train_images": TRAIN_IMAGES, "data__test_images": TEST_IMAGES, "checkpoint_every": 100,
        "batch_size": BATCH
    }  # fmt: skip
    return small(model, objective, **(fields | changes))
