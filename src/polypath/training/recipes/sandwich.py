"""Recipes that train the networks of the ``-fast`` recipes with the sandwich rule and in-place distillation.

They use the same images and as many epochs as the ``-fast`` recipes, which use drop-path as in the papers. So
``polypath ladder`` with both recipes shows how much of a path's tax the sandwich rule removes. Paths other than the
whole network learn on a share of each mini-batch. The share is so small that training costs at most three quarters as
much as training the same paths as separate networks. The settings are not from a paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from polypath.families.base import Family
from polypath.training.recipes.common import Entry, derive
from polypath.training.recipes.fast import CRESCENDO, FRACTAL, FRACTAL_FAST, RESNET
from polypath.training.sandwich import Sandwich


def entries() -> Iterator[Entry]:
    rows: tuple[tuple[Family, Sandwich, str], ...] = (
        (FRACTAL, taught(0.5, "column=1", "column=2"), "its columns"),
        (CRESCENDO, taught(0.37, "branches=1", "branches=1,2"), "its branches"),
        (replace(RESNET, survival=1.0), taught(0.37, "units=1"), "a lower depth"),
    )
    for model, objective, students in rows:
        changes = {"model": model, "objective": objective}
        purpose = f"the whole network teaches {students}: {' '.join(f'--paths {path}' for path in objective.paths)}"
        yield Entry(derive(FRACTAL_FAST, f"{model.family}-cifar10-sandwich", changes), purpose)


def taught(images: float, *paths: str) -> Sandwich:
    """Return an objective that trains ``paths`` on the share ``images`` of the images, half on the labels and half on
    the outputs of the whole network."""
    return Sandwich(paths=paths, images=images, labels=0.5)
