"""Power analysis: the effects that a number of seeds can detect, from the spread of statistics in existing results.

A committed result of the experiment contains the statistic of each seed, from which the spread is computed. Runs with a
smaller error also have a smaller spread: DFN's Table 4 prints standard deviations of 0.04 to 0.24 points at 6% error,
while the deviation at ``small`` is about 1 point at 60% error. A spread in points is therefore scaled in proportion to
the error expected at ``medium``. This is :data:`WITHIN` times the printed error (the largest error allowed there),
or :data:`EXPECTED` percent if the printed number is lost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from polypath.reproduce.claims import LEVEL, Claim
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.in_print import printed_numbers
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result

WITHIN, EXPECTED = 2.5, 15.0
MOST_SEEDS = 1000


class Spread(NamedTuple):
    """The standard deviation of a statistic over seeds, and its source."""

    deviation: float
    source: str


Known = Mapping[str, Mapping[str, tuple[float, float, str]]]
"""For each experiment and claim id: the statistic's standard deviation over seeds, the result's mean error and the
unit."""


def known_spreads(results: Iterable[Result]) -> Known:
    """Compute the spreads of all claims that were measured in ``results``."""
    return {result.experiment: spreads_of(result) for result in results}


def spread_of(experiment: Experiment, claim: Claim, known: Known) -> Spread | None:
    """Return the spread of a claim's statistic. If the experiment's own result does not contain it, return the median
    over the paper's claims in the same unit or, if there are none, over the claims of all papers. Return None if no
    result has that unit."""
    own = [of[claim.id] for name, of in known.items() if name == experiment.name and claim.id in of]
    if own:
        return Spread(own[0][0] * _scale(experiment, own[0][1], claim.unit), "this claim at small")
    for where, of in (("claims of this paper", experiment.paper), ("claims of all papers", "")):
        others = [
            s * _scale(experiment, error, claim.unit)
            for name, spreads in known.items()
            if name.startswith(of)
            for s, error, unit in spreads.values()
            if unit == claim.unit
        ]
        if others:
            return Spread(statistics.median(others), f"the median of {where} at small, in {claim.unit or 'no unit'}")
    return None


def seen(deviation: float, seeds: int, level: float = 1.0 - LEVEL) -> float:
    """Return the half-width of the interval from ``seeds`` seeds, as in the verdicts' bootstrap if images add no
    variation. With fewer than two seeds, it is infinite."""
    if seeds < 2:
        return math.inf
    return float(stats.t.ppf(0.5 + level / 2, seeds - 1)) * deviation / math.sqrt(seeds)


def seeds_for(deviation: float, effect: float) -> int:
    """Return the smallest number of seeds with which the interval's half-width is at most half of the effect, but at
    most :data:`MOST_SEEDS`."""
    return next((n for n in range(2, MOST_SEEDS) if seen(deviation, n) <= abs(effect) / 2), MOST_SEEDS)


def spreads_of(result: Result) -> dict[str, tuple[float, float, str]]:
    """Compute the spreads of one result's claims, by claim id."""
    try:
        claims = get_experiment(result.experiment).claims
    except ValueError:
        return {}
    error = float(np.mean([np.mean(v) for v in result.errors.values()])) if result.errors else math.nan
    found = {}
    for claim in claims:
        if claim.exact or len(result.seeds) < 2:
            continue
        try:
            each = [float(claim.statistic(_seed(result, i))) for i in range(len(result.seeds))]
        except KeyError:
            continue
        if all(map(math.isfinite, each)) and (s := statistics.stdev(each)) > 0:
            found[claim.id] = (s, error, claim.unit)
    return found


def _seed(result: Result, i: int) -> Mapping[str, np.ndarray]:
    return {key: np.asarray(v[i]) for key, v in {**result.errors, **result.values}.items()}


def _scale(experiment: Experiment, error: float, unit: str) -> float:
    """Return the factor that scales a spread at ``small`` to ``medium``."""
    if not unit.startswith("points") or not error > 0:
        return 1.0
    errors = [v for k, v in printed_numbers(experiment).items() if 0 < v < 100 and _is_error(experiment, k)]
    expected = WITHIN * statistics.median(errors) if errors else EXPECTED
    return min(1.0, expected / error)


def _is_error(experiment: Experiment, key: str) -> bool:
    return not any(key.endswith(end) for end in experiment.units if end) and "setting" not in key
