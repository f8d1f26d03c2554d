"""The paired bootstrap from which verdicts are computed.

A *sample* contains the results of N seeds: for each key, whether each image is classified correctly ``(N, images)``, or
a scalar per seed ``(N,)``. A draw resamples N seeds and the images of each test set, both with replacement, and
computes each key's mean error in percent or mean scalar. Draws are *paired*: all keys use the same resampled seeds and
images.

N is small, and a bootstrap over few seeds underestimates the variation between seeds. On average, its variance is only
(N − 1)/N of the true variance. It also ignores the uncertainty of this variance. A draw's deviation from the mean is
therefore split into two parts: one from the seeds (with all images kept) and one from the images. The first part is
multiplied by sqrt(N/(N−1)) · t/z. Here t and z are quantiles of Student's t with N − 1 degrees of freedom and of the
normal distribution, at the requested level. If the images add no variation, the interval is then close to that of the
paired t-test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

Means = Mapping[str, Any]
"""Mean errors (percent) or mean scalars, by key: an array over draws or a single value."""
Statistic = Callable[[Means], Any]

DRAWS = 4000
CHUNK = 200


@dataclass(frozen=True)
class Sample:
    """The results of several seeds, by key.

    Attributes:
        correct: whether each image is classified correctly, bool ``(seeds, images)``.
        images: the name of the test set of ``correct``. Keys with the same test set are compared image by image.
        values: scalars ``(seeds,)``.
    """

    correct: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        for array in (*self.correct.values(), *self.values.values()):
            return len(array)
        return 0

    def means(self) -> dict[str, np.ndarray]:
        """Return each key's mean error in percent or mean scalar, over all seeds and images."""
        errors = {key: np.asarray(100.0 * (1.0 - hits.mean())) for key, hits in self.correct.items()}
        return errors | {key: np.asarray(v.mean()) for key, v in self.values.items()}


@dataclass(frozen=True)
class Draws:
    """The means of all draws, ``(draws,)`` by key. ``seeds_only`` resamples only seeds; ``both`` resamples seeds and
    images."""

    seeds_only: dict[str, np.ndarray]
    both: dict[str, np.ndarray]


def draw(sample: Sample, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Resample seeds and images. The same ``seed`` gives the same draws on every machine."""
    n = sample.seeds
    generator = np.random.Generator(np.random.PCG64(seed))
    taken = generator.multinomial(n, np.full(n, 1.0 / n), size=draws) / n  # (draws, seeds): each seed's share
    seeds_only = {key: taken @ v for key, v in sample.values.items()}
    both = dict(seeds_only)
    for images in sorted(set(sample.images.values())):
        keys = [key for key, own in sample.images.items() if own == images]
        wrong = np.stack([~sample.correct[key] for key in keys]).astype(np.float32)  # (keys, seeds, images)
        whole = 100.0 * wrong.mean(2, dtype=np.float64)
        seeds_only |= dict(zip(keys, np.einsum("ds,ks->kd", taken, whole), strict=True))
        count, flat, parts = wrong.shape[2], wrong.reshape(-1, wrong.shape[2]), []
        for first in range(0, draws, CHUNK):
            share = taken[first : first + CHUNK]
            picked = generator.integers(count, size=(len(share), count))
            weights = np.stack([np.bincount(row, minlength=count) for row in picked]).astype(np.float32)
            errors = 100.0 * (flat @ weights.T / count).reshape(len(keys), n, -1)  # (keys, seeds, draws)
            parts.append(np.einsum("ds,ksd->kd", share, errors))
        both |= dict(zip(keys, np.concatenate(parts, axis=1), strict=True))
    return Draws(seeds_only, both)


def stretch(seeds: int, level: float) -> float:
    """Return the factor sqrt(N/(N−1)) · t/z of the module's docstring, for N seeds and a two-sided interval of
    ``level`` (such as 0.95)."""
    if seeds < 2:  # the variation between seeds is unknown: the interval covers only that of images
        return 1.0
    q = 0.5 + level / 2
    return math.sqrt(seeds / (seeds - 1)) * float(stats.t.ppf(q, seeds - 1) / stats.norm.ppf(q))


def interval(sample: Sample, draws: Draws, statistic: Statistic, level: float) -> tuple[float, float]:
    """Return the ends of the two-sided interval of a statistic."""
    deviations = _deviations(sample, draws, statistic, level)
    low, high = np.quantile(deviations, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return float(low), float(high)


def p_value(sample: Sample, draws: Draws, statistic: Statistic) -> float:
    """Return the two-sided p-value: twice the share of draws on the rarer side of zero, and at least 2/(draws + 1). The
    seeds' parts of deviations are multiplied by the factor for the level 0.95 (:func:`stretch`)."""
    found = _deviations(sample, draws, statistic, 0.95)
    side = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return min(1.0, 2.0 * (side + 1) / (len(found) + 1))


def _deviations(sample: Sample, draws: Draws, statistic: Statistic, level: float) -> np.ndarray:
    centre = float(statistic(sample.means()))
    by_seeds, by_both = statistic(draws.seeds_only), statistic(draws.both)
    return centre + stretch(sample.seeds, level) * (by_seeds - centre) + (by_both - by_seeds)
