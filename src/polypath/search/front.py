"""Computes the front of a set of choices, reduces the front, and measures how much better one set is than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from polypath.analysis.deadline import Interval, hypervolume, hypervolume_draws, interval_of
from polypath.core.paths import Paths
from polypath.deploy.heldout import pareto

Box = tuple[float, float, float]
Values = Mapping[Paths, float]


def front(errors: Values, costs: Values, most: int, classes: int) -> list[Paths]:
    """Return the front of some choices, cheapest first. Each choice of the front is more accurate than all choices that
    cost no more.

    If the front has more than ``most`` choices, it is reduced one choice at a time. Each time, the choice that adds the
    least hypervolume is removed. The most accurate choice always stays, and the cheapest stays if ``most`` is at least
    two.

    Args:
        errors: errors in percent.
        costs: costs in milliseconds or MACs.
    """
    kept = pareto(errors, costs)
    box = box_of([costs[p] for p in kept], classes)

    def without(i: int) -> float:
        return volume([*kept[:i], *kept[i + 1 :]], errors, costs, box)

    while len(kept) > most:
        del kept[max(range(1, len(kept) - 1) or [0], key=without)]
    return kept


def best(errors: Values, costs: Values, width: int, classes: int) -> list[Paths]:
    """Return ``width`` choices: those of the front, then those of the front of the remaining choices, and so on."""
    found, left = list[Paths](), dict(errors)
    while left and len(found) < width:
        layer = front(left, costs, width - len(found), classes)
        found += layer
        left = {p: error for p, error in left.items() if p not in layer}
    return found


def box_of(costs: Sequence[float], classes: int) -> Box:
    """Return the box of the hypervolume: half the lowest cost, twice the highest cost, and the error of random
    guessing."""
    return min(costs) / 2, max(costs) * 2, 100.0 * (1 - 1 / max(2, classes))


def volume(paths: Sequence[Paths], errors: Values, costs: Values, box: Box) -> float:
    """Return the hypervolume of some choices (see :func:`polypath.analysis.deadline.hypervolume`)."""
    return hypervolume(np.array([costs[p] for p in paths]), np.array([errors[p] for p in paths]), box)


def gain(
    one: Sequence[Paths],
    other: Sequence[Paths],
    right: Mapping[Paths, NDArray[np.bool_]],
    costs: Values,
    box: Box,
    *,
    draws: int = 1000,
) -> tuple[float, float, Interval]:
    """Return the hypervolumes of two sets of choices, and their difference with its 95% bootstrap interval over images.
    Both sets use the same resampled images.

    Args:
        right: for each choice, which images it classifies correctly, ``(images,)``.
    """

    def drawn(paths: Sequence[Paths]) -> NDArray[np.float64]:
        times = np.array([[costs[p] for p in paths]])
        return hypervolume_draws(times, np.stack([right[p] for p in paths], 1), box, draws=draws)

    a, b = drawn(one), drawn(other)
    return float(a[0]), float(b[0]), interval_of(a - b)
