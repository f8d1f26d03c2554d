"""What answers that follow each other do to each other: a later step puts wrong answers right, and right ones wrong.

An error that falls hides the second: an application that has shown the first answer takes it back for these images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Flips:
    """Images of ``images`` whose answer a step has changed: ``to_right`` from wrong, ``to_wrong`` from right."""

    to_right: int
    to_wrong: int
    images: int


def flips(right: ArrayLike | Sequence[ArrayLike]) -> list[Flips]:
    """What each step changes of the answers before it, from the second step on.

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
