"""Changes between successive answers: a later step corrects some wrong answers, and breaks some right ones.

A falling error hides the broken answers. An application that has already shown a broken answer must retract it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Flips:
    """How many of ``images`` answers a step changed: ``to_right`` from wrong to right, ``to_wrong`` from right to
    wrong."""

    to_right: int
    to_wrong: int
    images: int


def flips(right: ArrayLike | Sequence[ArrayLike]) -> list[Flips]:
    """Count the changes that each step makes to the previous step's answers, from the second step on.

    Args:
        right: ``(steps, images)``, whether each answer is right.

    Raises:
        ValueError: ``right`` has another shape.
    """
    hits = np.asarray(right, bool)
    if hits.ndim != 2:
        raise ValueError(f"right of shape {hits.shape}: must be (steps, images)")
    return [
        Flips(int((now & ~before).sum()), int((before & ~now).sum()), hits.shape[1]) for before, now in pairwise(hits)
    ]
