"""Compares methods by their predictions and times, with pure functions.

The options of all methods are timed together. So all of them ran beside the same neighbour (a program that uses the
processor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from polypath.analysis import deadline
from polypath.analysis.deadline import Interval
from polypath.analysis.flips import Flips, flips
from polypath.deploy.latency import disturbed
from polypath.worth.protocol import BOX


@dataclass(frozen=True, eq=False)
class Timed:
    """The times of all options of all methods.

    Attributes:
        unit_ms: milliseconds of the reference network.
        profile: milliseconds ``(runs, options)`` without a neighbour.
        requests: milliseconds ``(requests, options)`` under the trace.
    """

    unit_ms: float
    profile: NDArray[np.float64]
    requests: NDArray[np.float64]

    @property
    def busy(self) -> bool:
        """Whether something disturbed the times that were measured without a neighbour."""
        return any(disturbed(column) for column in self.profile.T)


@dataclass(frozen=True, eq=False)
class Asked:
    """The requests of a trace: ``budgets`` in units, whether a ``neighbour`` runs, and the indices of test
    ``images``."""

    budgets: NDArray[np.float64]
    neighbour: NDArray[np.bool_]
    images: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OptionRow:
    """The results of one option: its test error in percent, its times in milliseconds, and the share of requests for
    which the rule chose it. The times are medians and 99th percentiles, without and with a neighbour. Times with a
    neighbour are None if no request has one."""

    name: str
    error: float
    p50_ms: float
    p99_ms: float
    busy_p50_ms: float | None
    busy_p99_ms: float | None
    used: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The results of one method.

    Attributes:
        options: the options from the least to the most accurate, in the order that the method states.
        flips: changes of predictions from each option to the next.
        hypervolume: the share of the protocol's box of time and error that the options dominate.
        ways: for each way to choose an option, the share of requests that are answered correctly and in time. The ways
            are the ``rule``, the best ``fixed`` option, an oracle that knows the ``times``, and an ``oracle`` that
            knows times and predictions.
        fixed: name of the best fixed option.
        refused: the share of requests that the rule refused.
        gain: the rule's share minus the first method's; None for the first method.
        hypervolume_gain: the hypervolume minus the first method's; None for the first method.
    """

    options: list[OptionRow]
    flips: list[Flips]
    hypervolume: Interval
    ways: dict[str, Interval]
    fixed: str
    refused: float
    gain: Interval | None = None
    hypervolume_gain: Interval | None = None


WAYS = ("rule", "fixed", "times", "oracle")


def compared(
    names: Sequence[Sequence[str]],
    right: Sequence[NDArray[np.bool_]],
    timed: Timed,
    requests: Asked,
    chance: float,
) -> list[Compared]:
    """Compute the results of each method, see :class:`Compared`.

    Args:
        names: names of each method's options, the least accurate first.
        right: for each method, which test images its options classify correctly, ``(test images, options)``.
        chance: error of random guessing, in percent.
    """
    ends = np.cumsum([0, *map(len, names)])
    box = (BOX[0] * timed.unit_ms, BOX[1] * timed.unit_ms, chance)
    found: list[Compared] = []
    ours: NDArray[np.bool_] | None = None
    volume: NDArray[np.float64] | None = None
    for i, (of, hits) in enumerate(zip(names, right, strict=True)):
        columns = slice(int(ends[i]), int(ends[i + 1]))
        profile, times = timed.profile[:, columns], timed.requests[:, columns]
        measured = deadline.Measured(timed.unit_ms * requests.budgets, times, hits[requests.images])
        order = range(len(of) - 1, -1, -1)  # the most accurate first
        chosen = {
            "rule": deadline.by_needs(measured, order, profile),
            "fixed": deadline.fixed(measured),
            "times": deadline.in_time(measured, order),
            "oracle": deadline.oracle(measured),
        }
        outcomes = {way: measured.outcome(chosen[way]) for way in WAYS}
        draws = deadline.hypervolume_draws(profile, hits, box)
        gains: dict[str, Interval | None] = {}
        if ours is not None and volume is not None:
            lead = outcomes["rule"].astype(float) - ours
            gains = {"gain": _short(deadline.deadline_accuracy(lead))}
            gains["hypervolume_gain"] = _short(deadline.interval_of(draws - volume))
        else:
            ours, volume = outcomes["rule"], draws
        used = [float((chosen["rule"] == j).mean()) for j in range(len(of))]
        found.append(
            Compared(
                options=[
                    _row(name, hits[:, j], profile[:, j], times[:, j], requests.neighbour, used[j])
                    for j, name in enumerate(of)
                ],
                flips=flips(hits.T),
                hypervolume=_short(deadline.interval_of(draws)),
                ways={way: _short(deadline.deadline_accuracy(outcome)) for way, outcome in outcomes.items()},
                fixed=of[int(chosen["fixed"][0])],
                refused=round(float((chosen["rule"] == deadline.NONE).mean()), 4),
                **gains,
            )
        )
    return found


def _row(
    name: str,
    hits: NDArray[np.bool_],
    profile: NDArray[np.float64],
    times: NDArray[np.float64],
    neighbour: NDArray[np.bool_],
    used: float,
) -> OptionRow:
    p50, p99 = _quantiles(profile)
    busy = _quantiles(times[neighbour])
    return OptionRow(
        name=name,
        error=round(100.0 * float(1.0 - hits.mean()), 4),
        p50_ms=p50 or 0.0,
        p99_ms=p99 or 0.0,
        busy_p50_ms=busy[0],
        busy_p99_ms=busy[1],
        used=round(used, 4),
    )


def _quantiles(ms: NDArray[np.float64]) -> tuple[float | None, float | None]:
    if not len(ms):
        return None, None
    p50, p99 = np.quantile(ms, (0.5, 0.99)).tolist()
    return round(p50, 4), round(p99, 4)


def _short(interval: Interval) -> Interval:
    return Interval(**{name: round(value, 5) for name, value in asdict(interval).items()})
