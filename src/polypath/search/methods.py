"""Which choices are looked at: all, a beam of them, or drawn ones. Pure functions of an evaluation and of costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.search.front import best

Evaluate = Callable[[Sequence[Paths]], Sequence[float]]
"""Errors, in percent, of some choices."""
Cost = Callable[[Paths], float]
ROUNDS = 20  # of a beam at least, where its choices are fewer than those next to it


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
    """Errors of the choices that a beam search has looked at.

    It begins with some choices, and looks in each round at those next to the ``width`` best
    (:func:`polypath.search.front.best`), until these bring nothing new. Where that would be more than ``most`` in all,
    a round takes a twentieth of these, drawn.
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
    """So many different choices, all alike; all that there are where there are no more."""
    if space.count <= count:
        return list(space)
    found: dict[Paths, None] = {}
    while len(found) < count:
        found[space.draw(generator)] = None
    return list(found)
