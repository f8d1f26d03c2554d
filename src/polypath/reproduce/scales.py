"""Common parts of the scales: their recipes, and the description of their changes.

``smoke`` is for tests: it uses scikit-learn's digits and a few steps. ``small`` uses a fixed subset of CIFAR-10
(``--data.source``) at 16×16 pixels; a run takes minutes on one CPU core. ``medium`` uses published recipes on all
images of CIFAR-10 at 32×32 pixels; only epochs, schedule, batch size and precision are ours. ``paper`` uses the named
recipes of the published setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.base import Family
from polypath.reproduce.experiment import Scale
from polypath.training.objectives import Objective, Whole
from polypath.training.optim import OptimConfig
from polypath.training.recipe import Recipe
from polypath.training.recipe import replace as changed
from polypath.training.recipes import derive, get_recipe
from polypath.training.recipes.small import ONE_CYCLE, SGD

SMOKE = DataConfig(source="digits", train_images=120, test_images=100, cache=False)
SMALL = DataConfig(
    source="cifar10",
    train_images=5000,
    test_images=5000,
    size=16,
    resize="squash",
    augment=AugmentConfig(pad=2, mirror=True),
)

SMOKE_CHANGES = ("scikit-learn's digits (8×8 pixels, 120 training and 100 test images); tiny networks; 1 or 2 epochs",)


def smoke(model: Family, objective: Objective | None = None, **changes: Any) -> Recipe:
    """Return a recipe that trains for a second on digits. ``changes`` are other fields by dotted name (``__`` for the
    dot)."""
    recipe = Recipe(
        name="smoke",
        model=replace(model, in_chans=1),
        data=SMOKE,
        optim=OptimConfig(lr=0.05, momentum=0.9),
        objective=objective or Whole(),
        epochs=1,
        batch_size=40,
        device="cpu",
    )
    return _changed(recipe, changes)


def small(model: Family, objective: Objective | None = None, **changes: Any) -> Recipe:
    """Return a recipe that trains for minutes on CIFAR-10. ``changes`` are other fields by dotted name (``__`` for the
    dot)."""
    recipe = Recipe(
        name="small",
        model=model,
        data=SMALL,
        optim=SGD,
        schedule=ONE_CYCLE,
        objective=objective or Whole(),
        epochs=10,
        batch_size=50,
        channels_last=True,
        validate_every=1000,
        checkpoint_every=5,
        keep=1,
    )
    return _changed(recipe, changes)


def paper(name: str) -> Recipe:
    """Return a recipe of the published setting."""
    return get_recipe(name)


def medium(base: Recipe, epochs: int, **changes: Any) -> Recipe:
    """Return a recipe for ``medium``: a published recipe on all images of CIFAR-10, for ``epochs`` epochs.

    The network, the objective and the regularisation are those of ``base``. ``changes`` (with ``__`` for the dot) may
    halve the widths or set the peak learning rate.
    """
    ours = {
        "epochs": epochs,
        "schedule": ONE_CYCLE,
        "batch_size": 128,
        "accumulate": 1,
        "precision": "auto",
        "channels_last": True,
        "validate_every": 1000,
        "checkpoint_every": 1,
        "checkpoint_steps": 0,
        "keep": 1,
    }
    data = {"data.source": "cifar10", "data.size": None, "model.num_classes": 10}
    return derive(base, base.name, ours | data | {name.replace("__", "."): value for name, value in changes.items()})


def traced(recipe: Recipe) -> Recipe:
    """Return the recipe with the test error measured after every epoch, for figures."""
    return replace(recipe, trace_test=True)


def vary(base: Recipe, **changes: Any) -> Recipe:
    """Return a recipe with other values in some fields (``__`` for the dot). Reasons for these fields in ``assumed``
    are removed."""
    return derive(base, base.name, {name.replace("__", "."): value for name, value in changes.items()})


def small_changes(arms: Mapping[str, Recipe], *more: str) -> tuple[str, ...]:
    """Return descriptions of the changes at ``small``, derived from the arms' recipes, followed by ``more``."""
    recipes = list(arms.values())
    data = {(r.data.train_images, r.data.test_images, r.data.size) for r in recipes}
    told = []
    for train, test, size in sorted(data, key=str):
        side = f", resized to {size}×{size} pixels" if size and size != 32 else ""
        told.append(f"fixed subsets of CIFAR-10: {train:,} training images and {test:,} test images{side}")
    epochs = sorted({r.epochs for r in recipes})
    told.append(
        f"{' or '.join(map(str, epochs))} epochs, batches of {_each(r.batch_size for r in recipes)}, "
        f"{recipes[0].optim.kind.upper()} with a one-cycle learning rate; no held-out images, so the last epoch counts"
    )
    return (*told, *more)


def medium_changes(arms: Mapping[str, Recipe], *more: str) -> tuple[str, ...]:
    """Return descriptions of the changes at ``medium``, derived from the arms' recipes, followed by ``more``."""
    epochs = " or ".join(map(str, sorted({r.epochs for r in arms.values()})))
    return (
        f"{epochs} epochs, and half of them, with all images of CIFAR-10; a one-cycle learning rate; batches of 128; "
        "no held-out images, so the last epoch counts; bf16 if the device has instructions for it",
        *more,
    )


def at_scales(
    smoke: Callable[[], Mapping[str, Recipe]],
    small: Callable[[], Mapping[str, Recipe]] | None = None,
    paper: Callable[[], Mapping[str, Recipe]] | None = None,
    medium: Callable[[], Mapping[str, Recipe]] | None = None,
    *,
    small_seeds: int = 3,
    small_says: tuple[str, ...] = (),
    medium_seeds: int = 3,
    medium_says: tuple[str, ...] = (),
    paper_says: tuple[str, ...] = (),
    paper_seeds: int = 3,
) -> dict[str, Callable[[], Scale]]:
    """Return the usual scales, from functions that return their arms. ``smoke`` has one seed. ``small_says`` and
    ``medium_says`` are added to the usual descriptions of changes; ``paper_says`` stands alone."""

    def of_small() -> Scale:
        arms = small() if small is not None else {}
        return Scale(arms=arms, seeds=small_seeds, changes=small_changes(arms, *small_says))

    def of_medium() -> Scale:
        arms = medium() if medium is not None else {}
        return Scale(arms=arms, seeds=medium_seeds, changes=medium_changes(arms, *medium_says), both_lengths=True)

    scales = {"smoke": lambda: Scale(arms=smoke(), seeds=1, changes=SMOKE_CHANGES)}
    if small is not None:
        scales["small"] = of_small
    if medium is not None:
        scales["medium"] = of_medium
    if paper is not None:
        scales["paper"] = lambda: Scale(arms=paper(), seeds=paper_seeds, changes=paper_says)
    return scales


def exact_scales(smoke_says: str) -> dict[str, Callable[[], Scale]]:
    """Return the scales of an experiment that only counts parameters, paths or memory, and trains nothing. It counts
    those of the published networks. ``smoke_says`` describes the change at ``smoke``."""
    return {
        "smoke": lambda: Scale(changes=(smoke_says,)),
        "small": lambda: Scale(changes=("none, since the counts are those of the published networks",)),
        "paper": lambda: Scale(),
    }


def _each(values: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(values))))


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    return changed(recipe, {name.replace("__", "."): value for name, value in changes.items()})
