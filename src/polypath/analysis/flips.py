"""Changes of predictions from step to step: a step corrects some wrong predictions, and makes some correct ones wrong.

If the error decreases, this hides the predictions that become wrong. Then an application that has already shown the
correct prediction must replace it by a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Flips:
    """The effect of a step on the predictions for ``images`` images: ``to_right`` wrong predictions become correct, and
    ``to_wrong`` correct predictions become wrong."""

    to_right: int
    to_wrong: int
    images: int


def flips(right: ArrayLike | Sequence[ArrayLike]) -> list[Flips]:
    """Count the changes that each step makes to the previous step's predictions, from the second step on.

    Args:
        right: ``(steps, images)``, whether each prediction is correct.

    Raises:
        ValueError: ``right`` has another shape.
    """
    hits = np.asarray(right, bool)
    if hits.ndim != 2:
        raise ValueError(f"right has shape {hits.shape}: must be (steps, images)")
    return [
        Flips(int((now & ~before).sum()), int((before & ~now).sum()), hits.shape[1]) for before, now in pairwise(hits)
    ]
