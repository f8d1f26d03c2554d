"""Deadline accuracy: the share of requests answered *correctly and in time*. Late and refused requests count as wrong.

A :class:`Trace` is a sequence of requests. Each request has a budget, in a unit that is measured on the machine, and a
flag: whether another program (the neighbour) uses the processor. Spells of tight budgets and spells of loose budgets
alternate. :class:`Measured` contains, for each request and path, the milliseconds that the path took and whether its
prediction was correct. Policies are compared on these data. For each request, a policy chooses a path, or refuses it::

    fixed          one path, chosen in hindsight: the best that a network without paths could do
    by_needs       the most accurate path that kept the budget at earlier requests
    in_time        an oracle that knows the times: the most accurate path that will be in time
    oracle         an oracle that knows times and predictions: any path that will be correct and in time

All functions are pure; random numbers come from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polypath.core.checks import check, number, whole

NONE = -1  # no path: the request is refused
Chosen = NDArray[np.int64]
"""``(requests,)``: the index of the path that answers each request, or :data:`NONE`."""
_SEEN = "inverted_cdf"  # a quantile is an observed time, without interpolation


@dataclass(frozen=True, eq=False)
class Trace:
    """A sequence of requests.

    Attributes:
        budgets: ``(requests,)``, in units (see the module).
        neighbour: ``(requests,)`` bool, whether another program uses the processor.
        seed: the seed of the random numbers.
    """

    budgets: NDArray[np.float64]
    neighbour: NDArray[np.bool_]
    seed: int

    def __post_init__(self) -> None:
        if self.budgets.ndim != 1 or self.budgets.shape != self.neighbour.shape or not len(self.budgets):
            raise ValueError(
                f"budgets have shape {self.budgets.shape}, and neighbour has shape {self.neighbour.shape}: "
                "both must be (requests,), with at least one request"
            )
        if not (np.isfinite(self.budgets).all() and (self.budgets > 0).all()):
            raise ValueError("budgets: must be finite numbers above 0")

    def first(self, requests: int) -> Trace:
        """Return a trace of only the first ``requests`` requests."""
        return Trace(self.budgets[:requests], self.neighbour[:requests], self.seed)


def bursty_trace(
    requests: int,
    seed: int,
    *,
    tight: tuple[float, float] = (0.15, 0.8),
    loose: tuple[float, float] = (0.8, 4.0),
    spell: float = 40.0,
    busy: float = 0.25,
    busy_spell: float = 60.0,
) -> Trace:
    """Draw a random trace. Budgets are log-uniform in the range ``tight`` or ``loose``. Spells with these two ranges
    alternate. Their lengths are geometrically distributed.

    Args:
        tight, loose: smallest and largest budget of each kind of spell, in units.
        spell: mean number of requests in a spell.
        busy: share of requests with a neighbour. They come in spells of ``busy_spell`` requests on average.

    Raises:
        ValueError: there are no requests, or a number is out of range.
    """
    check("requests", requests, whole(1))
    check("busy", busy, number(above=0, below=1))
    for name, (low, high) in (("tight", tight), ("loose", loose)):
        if not 0 < low <= high:
            raise ValueError(f"{name} = {(low, high)}: must be two numbers above 0, the smaller one first")
    for name, length in (("spell", spell), ("busy_spell", busy_spell)):
        check(name, length, number(1))
    draw = np.random.default_rng(seed)
    of_loose = _spells(draw, requests, spell, spell)
    neighbour = _spells(draw, requests, busy_spell * (1 - busy) / busy, busy_spell)
    low, high = (np.where(of_loose, *pair) for pair in zip(np.log(loose), np.log(tight), strict=True))
    return Trace(np.exp(low + (high - low) * draw.random(requests)), neighbour, seed)


def _spells(draw: np.random.Generator, count: int, off: float, on: float) -> NDArray[np.bool_]:
    """Draw ``count`` flags in alternating spells of False and True, with mean lengths ``off`` and ``on``."""
    found: list[bool] = []
    now = bool(draw.random() < on / (off + on))
    while len(found) < count:
        found += [now] * int(draw.geometric(min(1.0, 1 / (on if now else off))))
        now = not now
    return np.asarray(found[:count], bool)


@dataclass(frozen=True, eq=False)
class Measured:
    """The time of each path at each request, and whether its prediction was correct.

    Attributes:
        budgets: ``(requests,)``, in milliseconds.
        times: ``(requests, paths)``, in milliseconds.
        right: ``(requests, paths)`` bool, whether the prediction was correct.
    """

    budgets: NDArray[np.float64]
    times: NDArray[np.float64]
    right: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.times.ndim != 2 or self.times.shape != self.right.shape or len(self.times) != len(self.budgets):
            raise ValueError(
                f"the shapes of times, right and budgets are {self.times.shape}, {self.right.shape} and "
                f"{self.budgets.shape}: must be (requests, paths), (requests, paths) and (requests,)"
            )

    @property
    def in_time(self) -> NDArray[np.bool_]:
        """Whether each path finished within each request's budget, ``(requests, paths)``."""
        return self.times <= self.budgets[:, None]

    def outcome(self, chosen: Chosen) -> NDArray[np.bool_]:
        """Return whether the ``chosen`` path of each request was correct and in time, ``(requests,)``."""
        rows = np.arange(len(chosen))
        return (chosen != NONE) & (self.right & self.in_time)[rows, chosen]


# --- policies --------------------------------------------------------------------------------------------------


def fixed(measured: Measured) -> Chosen:
    """Choose, for all requests, the one path that is correct and in time most often."""
    hits = (measured.right & measured.in_time).sum(0)
    return np.full(len(measured.budgets), int(hits.argmax()), np.int64)


def in_time(measured: Measured, order: Sequence[int]) -> Chosen:
    """Choose for each request the first path in ``order`` (the most accurate first) that is in time."""
    return _first(measured.in_time, order)


def oracle(measured: Measured) -> Chosen:
    """Choose for each request any path that is correct and in time."""
    return _first(measured.right & measured.in_time, range(measured.times.shape[1]))


def by_needs(
    measured: Measured, order: Sequence[int], profile: NDArray[np.float64], *, share: float = 0.995, kept: int = 1000
) -> Chosen:
    """Choose the first path in ``order`` (the most accurate first) that kept the budget in a ``share`` of earlier runs.

    The earlier runs of a path are those of the ``profile`` ``(runs, paths)`` and the requests for which it was chosen.
    Only the newest ``kept`` of them count. This is the rule of :class:`polypath.deploy.AnytimePredictor`, without
    retries.
    """
    seen = [list(profile[:, path]) for path in range(measured.times.shape[1])]
    needs = [float(np.quantile(times, share, method=_SEEN)) for times in seen]
    chosen = np.full(len(measured.budgets), NONE, np.int64)
    for i, budget in enumerate(measured.budgets):
        path = next((path for path in order if needs[path] <= budget), NONE)
        chosen[i] = path
        if path != NONE:
            seen[path].append(float(measured.times[i, path]))
            needs[path] = float(np.quantile(seen[path][-kept:], share, method=_SEEN))
    return chosen


def _first(fits: NDArray[np.bool_], order: Sequence[int]) -> Chosen:
    chosen = np.full(len(fits), NONE, np.int64)
    for path in reversed(order):
        chosen[fits[:, path]] = path
    return chosen


# --- figures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


def deadline_accuracy(
    outcome: NDArray[np.bool_] | NDArray[np.float64],
    *,
    block: int = 50,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Compute the mean of ``outcome`` ``(requests,)``, and its interval by the moving-block bootstrap (Künsch 1989).

    Requests of one spell are similar, so blocks of ``block`` consecutive requests are resampled, not single requests.
    If ``outcome`` is the difference of two outcomes on the same requests, the result is their mean difference with a
    paired interval.

    Raises:
        ValueError: ``outcome`` is empty.
    """
    n = len(outcome)
    if not n:
        raise ValueError("outcome: must have at least one request")
    block, draw = min(block, n), np.random.default_rng(seed)
    sums = np.convolve(outcome.astype(float), np.ones(block), "valid")
    count = max(1, round(n / block))
    means = sums[draw.integers(0, len(sums), (draws, count))].mean(1) / block
    return _interval(float(outcome.mean()), means, level)


def hypervolume(ms: NDArray[np.float64], errors: NDArray[np.float64], box: tuple[float, float, float]) -> float:
    """Compute the share, 0 to 1, of a box of log time and error that the paths dominate.

    Args:
        ms: milliseconds of each path, ``(paths,)``.
        errors: error of each path in percent, ``(paths,)``.
        box: smallest milliseconds, largest milliseconds and largest error. A path dominates all points that are slower
            and have a larger error.

    Raises:
        ValueError: the box is empty.
    """
    low, high, worst = box
    if not 0 < low < high or not worst > 0:
        raise ValueError(f"box = {box}: must be two ascending times and an error, all above 0")
    area, best = 0.0, worst
    at = np.log(np.clip(ms, low, high))
    for i in np.argsort(at, kind="stable"):
        if errors[i] < best:
            area += (np.log(high) - at[i]) * (best - errors[i])
            best = float(errors[i])
    return float(area / (np.log(high / low) * worst))


def hypervolume_draws(
    times: NDArray[np.float64],
    right: NDArray[np.bool_],
    box: tuple[float, float, float],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Compute bootstrap hypervolumes: one from all images and runs, then ``draws`` from resampled images and runs.

    With the same seed and the same test images, each draw resamples the same images for two networks. So the
    difference of their hypervolumes is paired.

    Args:
        times: ``(runs, paths)``, in milliseconds. The median over runs is used.
        right: ``(images, paths)`` bool, whether the path classifies the image correctly.
    """
    draw = np.random.default_rng(seed)
    found = np.empty(draws + 1)
    for i in range(draws + 1):
        images = draw.integers(0, len(right), len(right)) if i else np.arange(len(right))
        runs = draw.integers(0, len(times), len(times)) if i else np.arange(len(times))
        found[i] = hypervolume(np.median(times[runs], 0), 100.0 * (1.0 - right[images].mean(0)), box)
    return found


def interval_of(draws: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Return the interval of bootstrap draws. The first draw is the value itself."""
    return _interval(float(draws[0]), draws[1:], level)


def _interval(value: float, draws: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(value, low, high)
