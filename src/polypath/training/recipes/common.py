"""Datasets of the papers' recipes, and a function that derives one recipe from another."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from polypath.data.config import IMAGENET, PLUS, PLUS_PLUS, SVHN_HELD_OUT, DataConfig
from polypath.families.base import Family
from polypath.families.registry import get_preset
from polypath.training.recipe import Recipe, lookup, replace

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "imagenet": 1000, "digits": 10}

DATA: dict[str, DataConfig] = {
    "cifar10": DataConfig(source="cifar10"),
    "cifar10+": DataConfig(source="cifar10", augment=PLUS),
    "cifar10++": DataConfig(source="cifar10", augment=PLUS_PLUS),
    "cifar100": DataConfig(source="cifar100"),
    "cifar100+": DataConfig(source="cifar100", augment=PLUS),
    "cifar100++": DataConfig(source="cifar100", augment=PLUS_PLUS),
    "svhn": DataConfig(source="svhn", extra_split="extra"),
    "svhn-held-out": DataConfig(source="svhn", extra_split="extra", **SVHN_HELD_OUT),
    "imagenet": DataConfig(
        source="imagenet", size=224, resize_to=256, augment=IMAGENET, test_split="validation", streaming=True
    ),
}
"""The datasets, under the papers' names. "+" means that images are padded, cropped and mirrored. "++" means the same
with reflected borders (FractalNet §4)."""


class Entry(NamedTuple):
    """A recipe, and the place in the paper that states its result (``about``). If the recipe is not from a paper,
    ``about`` is its purpose."""

    recipe: Recipe
    about: str


def model_of(preset: str, dataset: str, **arguments: Any) -> Family:
    """Return the settings of the registered model ``preset``, with the number of classes of ``dataset``."""
    spec = get_preset(preset).spec
    return dataclasses.replace(spec, num_classes=CLASSES[dataset.rstrip("+")], **arguments)


def derive(
    base: Recipe,
    name: str,
    changes: Mapping[str, Any] | None = None,
    assumed: Mapping[str, str | None] | None = None,
) -> Recipe:
    """Return a copy of ``base`` with another name and the values of ``changes``, which maps dotted names of fields to
    new values.

    ``assumed`` adds reasons; a value of None removes the reason. Reasons for changed fields are dropped unless they are
    given again. Reasons for fields that the new model or objective does not have are also dropped.
    """
    changes, assumed = dict(changes or {}), dict(assumed or {})
    given = {field: reason for field, reason in base.assumed.items() if field not in changes}
    reasons = {field: reason for field, reason in {**given, **assumed}.items() if reason is not None}
    made = replace(dataclasses.replace(base, name=name, assumed={}), changes)
    return dataclasses.replace(made, assumed={field: reasons[field] for field in reasons if _has(made, field)})


def _has(recipe: Recipe, field: str) -> bool:
    with contextlib.suppress(ValueError):
        lookup(recipe, field)
        return True
    return False
