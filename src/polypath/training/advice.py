"""Warnings about a run: a learning rate that is too high, accuracy no better than chance, over-fitting, stuck gates,
and branches that never ran."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polypath.core.paths import WHOLE_TEXT, Paths
from polypath.core.wiring import Join, Wiring
from polypath.storage.shipped import PRETRAINED
from polypath.training.recipe import Recipe
from polypath.training.start import fits

RISING = 3
PATIENT = 5  # epochs before at_chance and over_fitting can warn
GUESSING = 0.95  # above this share of the chance error, a network has learned nothing
LEARNED, OVER = 1 / 3, 15.0  # over-fitting: training error below this share of chance, held-out error 15 points higher
STUCK = 0.01
DRIFT = 0.1
LEARNED_WEIGHTS = f"--init {PRETRAINED}"

ERRORS = "train_error", "val_error", "val_balanced_error"
Operands = set[tuple[str, str]]


def rising_loss(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Warn if the training loss has risen for three epochs in a row and is above the loss of the first epoch."""
    last = [row["train_loss"] for row in rows[-RISING - 1 :]]
    if len(last) <= RISING or any(b <= a for a, b in itertools.pairwise(last)):
        return None
    if last[-1] <= rows[0]["train_loss"]:
        return None
    lr = rows[-1]["lr"]
    return (
        f"the training loss has risen for {RISING} epochs ({last[0]:.3g} to {last[-1]:.3g}): the learning rate, now "
        f"{lr:.3g}, is probably too high; try a third of --optim.lr"
    )


def of_epochs(rows: Sequence[Mapping[str, Any]], chance: float, options: Sequence[str]) -> list[str]:
    """Return the warnings about the metrics of all epochs so far. ``options`` are remedies to suggest
    (:func:`untried`)."""
    found = rising_loss(rows), at_chance(rows, chance, options), over_fitting(rows, chance, options)
    return [text for text in found if text is not None]


def untried(recipe: Recipe) -> tuple[str, ...]:
    """List the options against over-fitting that ``recipe`` could use but does not, the most helpful first."""
    options = {
        LEARNED_WEIGHTS: recipe.init is None and recipe.path == WHOLE_TEXT and fits(recipe.model, PRETRAINED),
        "--data.augment.policy trivial": recipe.data.augment.policy == "none",
        "--label-smoothing 0.1": not recipe.label_smoothing,
    }
    return tuple(option for option, helps in options.items() if helps)


def chance(labels: Tensor, *, balanced: bool) -> float:
    """Compute the chance error in percent: the error of always predicting the most frequent class or, if ``balanced``,
    any one class."""
    counts = torch.bincount(labels)
    return 100.0 * (1.0 - (1.0 / len(counts) if balanced else float(counts.max() / counts.sum())))


def at_chance(rows: Sequence[Mapping[str, Any]], chance: float, options: Sequence[str] = ()) -> str | None:
    """Warn if no training or held-out error of any epoch is clearly below ``chance`` (in percent)."""
    if len(rows) < PATIENT:
        return None
    least = min(row[name] for row in rows for name in ERRORS if name in row)
    if least < GUESSING * chance:
        return None
    learned = f", or start from learned weights ({LEARNED_WEIGHTS})" if LEARNED_WEIGHTS in options else ""
    return (
        f"no better than guessing: after {len(rows)} epochs the lowest error is {least:.1f}%; always predicting "
        f"one class gives {chance:.1f}%; check that each folder contains one class, set --optim.lr to a third of "
        f"{rows[-1]['lr']:.2g}{learned}"
    )


def over_fitting(rows: Sequence[Mapping[str, Any]], chance: float, options: Sequence[str] = ()) -> str | None:
    """Warn if the training error is low and the held-out error is much higher. Errors are in percent. Without held-out
    images, the test error counts."""
    last = rows[-1]
    measured = next((name for name in ("val_balanced_error", "val_error", "test_error") if name in last), None)
    if measured is None or len(rows) < PATIENT:
        return None
    trained, held = last["train_error"], last[measured]
    others = "test images" if measured == "test_error" else "held-out ones"
    if held - trained < OVER or trained > LEARNED * min(held, chance):
        return None
    more = f", then {', '.join(options)}" if options else ""
    return (
        f"over-fitting: {trained:.1f}% error on training images and {held:.1f}% on {others} in epoch "
        f"{last['epoch']}; more images help most{more}"
    )


def stuck_gates(row: Mapping[str, Any]) -> list[str]:
    """Warn about each gate that nearly all or nearly none of an epoch's samples passed."""
    found = []
    for name, rate in row.items():
        if name.startswith("rate/") and not STUCK <= rate <= 1 - STUCK:
            state = "open" if rate > 0.5 else "shut"
            found.append(
                f"gate {name.removeprefix('rate/')} is stuck {state}: {100 * rate:.1f}% of the samples passed it"
            )
    return found


def drifted_gates(row: Mapping[str, Any], target: float) -> str | None:
    """Warn if the gates' rates on held-out images, measured without noise, are far from ``target``."""
    rates = [rate for name, rate in row.items() if name.startswith("val_rate/")]
    if not rates or max(abs(rate - target) for rate in rates) <= DRIFT:
        return None
    return (
        f"without noise, the gates' rates on held-out images are {min(rates):.2f} to {max(rates):.2f}, but the target "
        f"rate is {target:g}; `polypath extract RUN --paths whole --gate-rate {target:g}` corrects the rates"
    )


def operands_of(wiring: Wiring, paths: Iterable[Paths], seen: Operands) -> None:
    """Add to ``seen`` each operand, as (join, label), that runs in one of ``paths``."""
    total = sum(len(join.operands) for join in wiring.joins.values())
    for choice in paths:
        if len(seen) == total:
            return
        for node in wiring.alive(choice):
            if isinstance(node, Join):
                seen.update((node.name, operand.label) for operand in node.chosen(choice))


def never_ran(wiring: Wiring, seen: Operands, steps: int) -> list[str]:
    """Warn about each join with operands that ran in no step."""
    found = []
    for join in wiring.joins.values():
        if missing := [label for label in join.labels if (join.name, label) not in seen]:
            found.append(f"{join.name}: operand {', '.join(missing)} never ran in {steps} steps, so it has not learned")
    return found
