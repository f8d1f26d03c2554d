"""Settle the fields that a recipe leaves open, from facts about the images that are known before images are decoded.

    facts = look(recipe.data)                 # polypath.data.sources
    settled = settle(recipe, facts)           # no field is open; ``assumed`` has the reason for each value

The ``open_fields`` of a recipe are settled in the order of :data:`DECISIONS`, so a decision can use the values of
earlier decisions. A field that you give a value is not open, and keeps the value. The settled values are starting
points, not the best values for every folder. ``benchmarks/own_pictures.py`` tests these values.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from polypath.core.checks import check, one_of
from polypath.data.config import AugmentConfig
from polypath.data.facts import ImageFacts
from polypath.data.sources import look
from polypath.storage.shipped import PRETRAINED
from polypath.training.objectives import Whole
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe, lookup, replace
from polypath.training.run_data import located
from polypath.training.sandwich import Sandwich
from polypath.training.start import fits, made_for, model_of, prepared_for, timm_start

LOG = logging.getLogger(__name__)

Decision = Callable[[Recipe, ImageFacts], tuple[Mapping[str, Any], str]]
"""A function that returns values of fields, by dotted name, and the reason for these values."""

SIDES = (32, 48, 64)  # pixels; the package's network was trained on 32
WORK = 75_000  # most images of 32x32 pixels in all epochs, or fewer larger ones: ten minutes on two old cores
LARGEST = 128  # pixels; for a timm model that takes images of any size
SMALL = 48  # pixels; images up to this side count as icons, digits or thumbnails, not as photos
HELD_OUT, LEAST_HELD, MOST_HELD = 0.15, 2, 2000  # share of images that are held out; least per class; most in total
UNEVEN = 3.0  # least ratio of the largest to the smallest class at which classes are balanced
FOR_A_BUNDLE = 50  # held-out images that an export needs; held out if they are at most a third of all images
FEW = 50  # images per class; with fewer, augmentation is stronger and training longer
STEPS_OF_FEW, BATCH_OF_FEW = 1500, 16  # with few images, the least number of optimiser steps, and the batch size
UNLIKE = 0.5  # share of the error of guessing: above it, features do not fit the images, and the weights must change
FITTED = 2000  # images; more of them hardly change a linear classifier
UNSAID = ("data.mean", "data.std", "norms", "fit_head", "optim.kind")  # logged only if their value changes
SIDED = re.compile(r"(^|[^a-z])(left|right)([^a-z]|$)", re.IGNORECASE)


def settle(recipe: Recipe, facts: ImageFacts) -> Recipe:
    """Return the recipe with its open fields settled, and the reasons in ``assumed``. The result depends only on the
    arguments.

    Raises:
        ValueError: an open field has no decision that could settle it.
    """
    for name in recipe.open_fields:
        check("open_fields", name, one_of(*DECISIONS))
    for name, decide in DECISIONS.items():
        if name in recipe.open_fields:
            changes, reason = decide(recipe, facts)
            settled = replace(recipe, changes)
            left = tuple(other for other in recipe.open_fields if other != name)
            assumed = {**recipe.assumed, **dict.fromkeys(changes, reason)}
            recipe = dataclasses.replace(settled, open_fields=left, assumed=assumed)
    return recipe


def settled(recipe: Recipe, moved: str | os.PathLike[str] | None = None, *, quiet: bool = False) -> Recipe:
    """Look at a recipe's images, or at the images in the folder ``moved``, and settle the recipe's open fields. The
    settled values and the reasons are logged.

    Raises:
        ValueError: as for :func:`settle` and :func:`polypath.data.sources.look`.
    """
    if not recipe.open_fields:
        return recipe
    if "data.source" in recipe.open_fields:
        raise ValueError(f"{recipe.name}: give the folder of your images with --data.source DIR")
    place = None if moved is None else os.fspath(moved)
    facts = look(located(recipe.data, place))
    found = settle(recipe, facts)
    if "optim.lr" in recipe.open_fields and _few(facts) and found.fit_head and found.init and not _of_timm(found):
        from polypath.training.fit_head import feature_error

        measured = feature_error(dataclasses.replace(found, data=located(found.data, place)))
        found = settle(recipe, dataclasses.replace(facts, feature_error=measured))
    if not quiet:
        for line in told(recipe, found):
            LOG.info("%s", line)
    return found


def told(before: Recipe, after: Recipe) -> list[str]:
    """Return one line for each settled field: its name, its value and the reason."""
    new = {name: why for name, why in after.assumed.items() if before.assumed.get(name) != why}
    shown = [name for name in new if name not in UNSAID or lookup(after, name) != lookup(before, name)]
    return [f"{name} = {_brief(lookup(after, name))}: {new[name]}" for name in shown]


def _brief(value: Any) -> str:
    """Format a value. For a dataclass, only fields that differ from their defaults are shown."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return str(value)
    own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if getattr(value, f.name) != f.default}
    return f"{type(value).__name__}({', '.join(f'{name}={part!r}' for name, part in own.items())})"


# --- what to start from --------------------------------------------------------------------------------------------


def _source(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    return {"data.source": recipe.data.source}, "the images are elsewhere"


def _init(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if fits(recipe.model, PRETRAINED):
        return {"init": PRETRAINED}, "the package contains weights for this model, trained on 45,000 photos"
    return {"init": None}, "the package contains no weights for this model"


def _model(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if recipe.init is None:
        return {"model": recipe.model}, "the recipe's model is kept, since init is not set"
    return {"model": model_of(recipe.init)}, f"this is the model of init, {recipe.init}"


def _classes(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    return {"model.num_classes": len(facts.classes)}, "the number of classes of the images"


def _objective(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if _few(facts) and recipe.init == PRETRAINED:
        reason = "there are few images, so the cheapest path is trained in every step, not only in some steps"
        return {"objective": Sandwich(draws=0, labels=0.5)}, reason
    if draws := recipe.model.path_draws():
        return {"objective": DropPath(**draws)}, "paths that are drawn in training can be used alone afterwards"
    return {"objective": Whole()}, "only the whole network is trained, since the family does not define drawn paths"


# --- images ----------------------------------------------------------------------------------------------------------


def _channels(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    wanted = recipe.model.in_chans
    what = "the images are grey" if facts.grey else "some of the images have colours"
    return {"data.channels": wanted}, f"the network reads {wanted} channel(s); {what}"


def _size(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    model, side, known = recipe.model, facts.side, made_for(recipe.model, recipe.init)
    if known is not None:
        return _known_size(*known)
    least = max(model.min_size, SIDES[0])
    if facts.alike and model.min_size <= side < least:
        return {"data.size": side}, f"all images have {side}x{side} pixels"
    size = max([s for s in SIDES if s <= side] or [least])
    images = _left(recipe, facts)
    work = STEPS_OF_FEW * BATCH_OF_FEW if _few(facts) else images * _usual_epochs(images)
    quick = max([s for s in SIDES if work * (s / SIDES[0]) ** 2 <= WORK] or [SIDES[0]])
    why = f"the shorter side of an image is {side} pixels (median); larger sizes take longer"
    if quick < size:
        why = f"larger images would take longer than about ten minutes; --data.size {size} may be more accurate"
    return {"data.size": max(min(quick, size), model.min_size)}, why


def _known_size(side: int, fixed: bool) -> tuple[Mapping[str, Any], str]:
    if side <= LARGEST or fixed:
        return {"data.size": side}, "the model was made for this size"
    why = f"the model was made for {side} pixels, which would take {(side / LARGEST) ** 2:.1f} times as long"
    return {"data.size": LARGEST}, why


def _normalised(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    known = prepared_for(recipe.model, recipe.init)
    if len(known.get("mean", ())) != recipe.model.in_chans:
        return {"data.mean": None, "data.std": None}, "computed from the training images, by data.normalise"
    values = {f"data.{name}": tuple(known[name]) for name in ("mean", "std")}
    return values, "the pretrained model was trained with these values"


def _held_out(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if facts.validation_split is not None:
        changes = {"data.validation": 0, "data.validation_split": facts.validation_split}
        return changes, "this split of the dataset is used for choices"
    images = _left(recipe, facts)
    if images < 3 * FOR_A_BUNDLE:
        reason = f"all {images:,} images are trained on; a third of them would be too few to choose paths and epochs"
        return {"data.validation": 0}, reason
    wanted = max(HELD_OUT * images, LEAST_HELD * len(facts.classes))
    held = max(FOR_A_BUNDLE, round(min(wanted, MOST_HELD, images / 4)))
    return {"data.validation": held}, f"of {images:,} images, for the choice of the best epoch and for early stopping"


def _left(recipe: Recipe, facts: ImageFacts) -> int:
    """Count the images that are not test images."""
    return facts.images if facts.tested else facts.images - max(1, round(facts.images * recipe.data.test_fraction))


def _few(facts: ImageFacts) -> bool:
    return facts.images < FEW * len(facts.classes)


def _trained(recipe: Recipe, facts: ImageFacts) -> int:
    """Count the images to train on."""
    return recipe.data.train_images or max(1, _left(recipe, facts) - recipe.data.validation)


def _augment(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    size = recipe.data.size or facts.side
    sided = next((name for name in facts.classes if SIDED.search(name)), None)
    mirror = not sided and not (facts.grey and facts.side <= SMALL)
    why = f"class {sided!r} depends on left and right" if sided else "small grey images may be letters"
    told = "and mirrored" if mirror else f"but not mirrored, since {why}"
    if facts.side <= SMALL:
        changes = AugmentConfig(pad=max(1, size // 8), mirror=mirror)
        return {"data.augment": changes}, f"small images are shifted by an eighth of their side, {told}"
    policy, more = ("trivial", "; few images also get TrivialAugment") if _few(facts) and mirror else ("none", "")
    changes = AugmentConfig(scale=(0.5, 1.0), mirror=mirror, policy=policy)
    return {"data.augment": changes}, f"photos are cropped to half of their area or more, {told}{more}"


def _balanced(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    uneven = facts.balance >= UNEVEN
    reason = f"the largest class has {facts.balance:.1f} times the images of the smallest"
    return {"data.balanced": uneven}, f"{reason}; from {UNEVEN:g} times on, all classes are drawn equally often"


# --- steps -----------------------------------------------------------------------------------------------------------


def _batch(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    images = _trained(recipe, facts)
    size = BATCH_OF_FEW if images < 600 else 32 if images < 5000 else 64
    return {"batch_size": max(1, min(size, images))}, f"chosen by the number of training images, {images:,}"


def _epochs(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    images = _trained(recipe, facts)
    epochs = _usual_epochs(images)
    if _few(facts) and (more := round(STEPS_OF_FEW * recipe.batch_size / images)) > epochs:
        return {"epochs": min(more, 500)}, f"there are few images, so {STEPS_OF_FEW:,} steps, at most 500 epochs"
    return {"epochs": epochs}, f"800 divided by the square root of {images:,} training images, within 8 to 100"


def _usual_epochs(images: int) -> int:
    return min(100, max(8, round(800 / math.sqrt(images))))


def _norms(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if _of_timm(recipe):
        return {"norms": "frozen"}, "the pretrained statistics are better than those of small batches"
    return {"norms": "trained"}, "there are no pretrained statistics, or they are of other images"


def _fit_head(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if recipe.init is None:
        return {"fit_head": 0}, "features of random weights are of no use to a classifier"
    return {"fit_head": min(FITTED, _trained(recipe, facts))}, "training then begins with a fitted classifier"


def _optimiser(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if not _of_timm(recipe):
        return {"optim.kind": recipe.optim.kind}, "the recipe's optimiser is kept"
    changes = {"kind": "adamw", "nesterov": False, "weight_decay": 0.02, "decay": "matrices", "head_lr": 3.0}
    why = "usual for pretrained weights; the new classifier has three times the learning rate"
    return {f"optim.{name}": value for name, value in changes.items()}, why


def _of_timm(recipe: Recipe) -> bool:
    return recipe.init is not None and timm_start(recipe.init, recipe.model) is not None


def _rate(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if recipe.optim.kind in ("adam", "adamw"):
        rate = 1e-3 if recipe.init is None else 3e-4
        return {"optim.lr": rate}, f"usual for {recipe.optim.kind} if the weights are {_origin(recipe)}"
    rate, more = 0.05 if recipe.init is None else 0.01 if _few(facts) else 0.02, ""
    if recipe.init is not None and facts.feature_error is not None:
        unlike = facts.feature_error > UNLIKE * 100 * (1 - 1 / len(facts.classes))
        rate, what = (0.08, "other images than yours") if unlike else (rate, "images like yours")
        more = f" on {what} (a linear classifier on its features has an error of {facts.feature_error:.0f}%)"
    rate = rate * math.sqrt(recipe.batch_size / 32)
    return {"optim.lr": round(rate, 4)}, f"for weights that are {_origin(recipe)}{more}, and for this batch size"


def _origin(recipe: Recipe) -> str:
    return "drawn at random" if recipe.init is None else "pretrained"


def _patience(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if not recipe.chooses:
        return {"patience": 0}, "early stopping needs held-out images, and there are none"
    return {"patience": max(5, recipe.epochs // 2)}, "half of the epochs (at least 5) without a lower error"


def _validate_every(recipe: Recipe, facts: ImageFacts) -> tuple[Mapping[str, Any], str]:
    if not recipe.chooses:
        return {"validate_every": recipe.epochs}, "there are no held-out images to measure an error on"
    why = "the held-out error is measured about twenty times; more often would favour lucky epochs"
    return {"validate_every": max(1, recipe.epochs // 20)}, why


DECISIONS: Mapping[str, Decision] = {
    "data.source": _source,
    "init": _init,
    "model": _model,
    "model.num_classes": _classes,
    "objective": _objective,
    "data.channels": _channels,
    "data.size": _size,
    "data.mean": _normalised,
    "data.validation": _held_out,
    "data.augment": _augment,
    "data.balanced": _balanced,
    "batch_size": _batch,
    "epochs": _epochs,
    "norms": _norms,
    "fit_head": _fit_head,
    "optim.kind": _optimiser,
    "optim.lr": _rate,
    "validate_every": _validate_every,
    "patience": _patience,
}
"""The decision for each field. Fields are settled in this order."""
