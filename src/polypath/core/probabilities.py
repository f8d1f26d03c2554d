"""The average prediction of several networks, paths or views: the mean of their softmax outputs, or its logarithm.

All sums are computed in float32, or in float64 for float64 logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from polypath.core.precision import at_least_float32


def average_probabilities(logits: Iterable[Tensor]) -> Tensor:
    """Compute the mean of the members' softmax outputs ``(N, classes)`` from their logits, one member at a time.

    Raises:
        ValueError: ``logits`` is empty.
    """
    total, members = None, 0
    for given in logits:
        p = at_least_float32(given).softmax(-1)
        total, members = p if total is None else total + p, members + 1
    if total is None:
        raise ValueError("an ensemble needs at least one member")
    return total / members


def log_average_probabilities(logits: Tensor, dim: int = 0) -> Tensor:
    """Compute the log of the mean of softmax outputs over ``dim``: ``(members, N, classes)`` to ``(N, classes)``.

    Unlike the logarithm of :func:`average_probabilities`, the result and its gradient stay finite when probabilities
    underflow.
    """
    return at_least_float32(logits).log_softmax(-1).logsumexp(dim) - math.log(logits.shape[dim])
