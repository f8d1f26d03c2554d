"""Computes errors and taxes with their intervals. The inputs say which images each network classifies correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polypath.reproduce.bootstrap import Means, Sample, draw, interval
from polypath.worth.result import Tax

LEVEL, ONE_SIDED = 0.95, 0.9  # the upper end of the two-sided 90% interval is the one-sided 95% bound


class Taxes:
    """A calculator for the taxes of paths: their errors in the network minus those of their twins.

    Args:
        net: for each path, which images it classifies correctly in the network, ``(seeds, images)``.
        twins: the same for the twin of each path, by kind and path, with the same seeds and images.
    """

    def __init__(self, net: Mapping[str, np.ndarray], twins: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        correct = {_key("net", path): hits for path, hits in net.items()}
        correct |= {_key(kind, path): hits for kind, of in twins.items() for path, hits in of.items()}
        self.sample = Sample(correct, dict.fromkeys(correct, "test"))
        self.draws = draw(self.sample)

    def of(self, kind: str, paths: Sequence[str]) -> Tax:
        """Return the mean tax of some paths, compared with their twins of one kind."""

        def statistic(means: Means) -> np.ndarray:
            return np.mean([means[_key("net", path)] - means[_key(kind, path)] for path in paths], axis=0)

        low, high = interval(self.sample, self.draws, statistic, LEVEL)
        most = interval(self.sample, self.draws, statistic, ONE_SIDED)[1]
        tax = float(statistic(self.sample.means()))
        return Tax(tax=round(tax, 4), low=round(low, 4), high=round(high, 4), most=round(most, 4))


def errors(hits: np.ndarray) -> tuple[float, ...]:
    """Return the error in percent for each seed. ``hits`` ``(seeds, images)`` says which images are classified
    correctly."""
    return tuple(round(100.0 * float(1.0 - row.mean()), 4) for row in hits)


def _key(kind: str, path: str) -> str:
    return f"{kind}: {path}"
