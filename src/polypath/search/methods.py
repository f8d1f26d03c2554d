"""Selects the choices that are evaluated: by a beam search, or at random. All functions here are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.search.front import best

Evaluate = Callable[[Sequence[Paths]], Sequence[float]]
"""A function that returns the errors of some choices, in percent."""
Cost = Callable[[Paths], float]
ROUNDS = 20  # a beam search has at least this many rounds, if it finds more neighbours than it may evaluate


def beam(
    space: ChoiceSpace,
    evaluate: Evaluate,
    cost: Cost,
    *,
    start: Iterable[Paths],
    width: int,
    most: int,
    classes: int,
    generator: torch.Generator,
) -> dict[Paths, float]:
    """Run a beam search, and return the errors of all choices that it evaluated.

    The search begins with ``start``. Each round evaluates the neighbours of the ``width`` best choices
    (:func:`polypath.search.front.best`). The search ends when there are no new neighbours, or when ``most`` choices
    were evaluated. A round evaluates at most a twentieth of ``most``, or ``width`` choices if that is more. If there
    are more new neighbours than this, the round draws that many at random.
    """
    first = list(dict.fromkeys(start))[:most]
    errors = dict(zip(first, evaluate(first), strict=True))
    costs = {p: cost(p) for p in errors}
    while len(errors) < most:
        held = best(errors, costs, width, classes)
        fresh = [p for p in dict.fromkeys(n for p in held for n in space.neighbours(p)) if p not in errors]
        if not fresh:
            break
        room = min(most - len(errors), max(width, -(-most // ROUNDS)))
        if len(fresh) > room:
            drawn = torch.randperm(len(fresh), generator=generator)[:room].sort().values
            fresh = [fresh[i] for i in drawn.tolist()]
        errors |= zip(fresh, evaluate(fresh), strict=True)
        costs |= {p: cost(p) for p in fresh}
    return errors


def drawn(space: ChoiceSpace, count: int, generator: torch.Generator) -> list[Paths]:
    """Return ``count`` different choices, drawn uniformly at random, or all choices if there are not more."""
    if space.count <= count:
        return list(space)
    found: dict[Paths, None] = {}
    while len(found) < count:
        found[space.draw(generator)] = None
    return list(found)
