"""Changes between successive answers: a later step corrects wrong answers, and breaks right ones.

A falling error hides the broken answers: an application that has shown the first answer must retract it for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Flips:
    """Of ``images`` images, how many answers a step changed: ``to_right`` from wrong, ``to_wrong`` from right."""

    to_right: int
    to_wrong: int
    images: int


def flips(right: ArrayLike | Sequence[ArrayLike]) -> list[Flips]:
    """The changes that each step makes to the previous step's answers, from the second step on.

    Args:
        right: ``(steps, images)``, whether each answer is right.

    Raises:
        ValueError: another shape.
    """
    hits = np.asarray(right, bool)
    if hits.ndim != 2:
        raise ValueError(f"right of shape {hits.shape}: must be (steps, images)")
    return [
        Flips(int((now & ~before).sum()), int((before & ~now).sum()), hits.shape[1]) for before, now in pairwise(hits)
    ]
