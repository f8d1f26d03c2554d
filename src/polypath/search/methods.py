"""Which choices are evaluated: by a beam search, or drawn at random. Pure functions of an evaluation and of costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.search.front import best

Evaluate = Callable[[Sequence[Paths]], Sequence[float]]
"""Errors, in percent, of some choices."""
Cost = Callable[[Paths], float]
ROUNDS = 20  # the fewest rounds of a beam, if it has more neighbours than it may evaluate


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
    """Errors of the choices that a beam search has evaluated.

    It begins with ``start``, and evaluates in each round the neighbours of the ``width`` best choices
    (:func:`polypath.search.front.best`), until there are no new ones. A round evaluates at most a twentieth of
    ``most``, or ``width`` if that is more; of more neighbours, it draws that many.
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
    """``count`` different choices, drawn uniformly; all choices if there are no more."""
    if space.count <= count:
        return list(space)
    found: dict[Paths, None] = {}
    while len(found) < count:
        found[space.draw(generator)] = None
    return list(found)
