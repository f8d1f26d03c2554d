"""Networks for benchmarks of deployment. They are trained briefly by a recipe that trains paths; results record the
recipe.

These benchmarks measure time, which does not depend on how well a network is trained. Runs are kept in the folder
``POLYPATH_BENCH`` (default ``runs/bench``). CIFAR-10 is read from the folder ``POLYPATH_CIFAR10``, or from the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from polypath.data.sources import load_images
from polypath.data.split import Split
from polypath.training.loop import train
from polypath.training.recipe import Recipe, replace
from polypath.training.recipes import get_recipe

PLACE = Path(os.environ.get("POLYPATH_BENCH") or "runs/bench")


def cifar10() -> str:
    return os.environ.get("POLYPATH_CIFAR10") or "cifar10"


def cifar10_test() -> tuple[np.ndarray, np.ndarray]:
    """Load the test images ``(N, H, W, C)`` uint8 and their labels ``(N,)``."""
    test = load_images(replace(get_recipe("fractalnet-cifar10-bundle"), {"data.source": cifar10()}).data).test
    assert isinstance(test, Split)
    return test.images.permute(0, 2, 3, 1).numpy(), test.labels.numpy()


def briefly(
    recipe: str, name: str, *, images: int, epochs: int, test_images: int = 1000, validation: int = 500, **changes
) -> Path:
    """Return the folder of a run of ``recipe`` with few images and epochs. Train it first if it is missing."""
    folder = PLACE / name
    if (folder / "summary.json").is_file():
        return folder
    few = {
        "name": name,
        "epochs": epochs,
        "precision": "fp32",
        "validate_every": epochs,
        "checkpoint_every": epochs,
        "data.source": cifar10(),
        "data.train_images": images,
        "data.validation": validation,
        "data.test_images": test_images,
    }
    short: Recipe = replace(get_recipe(recipe), few | changes)
    PLACE.mkdir(parents=True, exist_ok=True)
    train(short, folder)
    return folder
