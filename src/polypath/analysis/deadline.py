"""Deadline accuracy: the share of requests answered *right and in time*. Late and refused requests count as wrong.

A :class:`Trace` is a sequence of requests. Each has a budget, in a unit that is measured on the machine, and a flag:
whether another program (the neighbour) uses the processor. Budgets come in spells, alternately of tight and of loose
budgets. :class:`Measured` is the result: for each request and path, how many milliseconds the path took and whether its
answer was right. Policies are compared on these results. For every request, a policy chooses a path or none::

    fixed          one path, chosen in hindsight: the best that a network without paths could do
    by_needs       the most accurate path whose times so far kept the budget, without looking ahead
    in_time        an oracle that knows the times: the most accurate path that will be in time
    oracle         an oracle that knows times and answers: any path that will be right and in time

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
_SEEN = "inverted_cdf"  # use a time that was observed, not one between two


@dataclass(frozen=True, eq=False)
class Trace:
    """A sequence of requests.

    Attributes:
        budgets: ``(requests,)`` in units.
        neighbour: ``(requests,)`` bool, whether another program uses the processor.
        seed: the seed of the random numbers.
    """

    budgets: NDArray[np.float64]
    neighbour: NDArray[np.bool_]
    seed: int

    def __post_init__(self) -> None:
        if self.budgets.ndim != 1 or self.budgets.shape != self.neighbour.shape or not len(self.budgets):
            raise ValueError(f"budgets {self.budgets.shape}, neighbour {self.neighbour.shape}: must be (requests,)")
        if not (np.isfinite(self.budgets).all() and (self.budgets > 0).all()):
            raise ValueError("budgets: must be numbers above 0")

    def first(self, requests: int) -> Trace:
        """Return the trace of only the first requests."""
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
    """Draw a random trace. Budgets are log-uniform in ``tight`` or ``loose``, in spells of geometric length.

    Args:
        tight, loose: least and largest budget of each kind of spell, in units.
        spell: mean requests per spell.
        busy: share of requests with a neighbour, in spells of ``busy_spell`` requests on average.

    Raises:
        ValueError: no requests, numbers out of range.
    """
    check("requests", requests, whole(1))
    check("busy", busy, number(above=0, below=1))
    for name, (low, high) in (("tight", tight), ("loose", loose)):
        if not 0 < low <= high:
            raise ValueError(f"{name} = {(low, high)}: must be two numbers above 0, the least first")
    for name, length in (("spell", spell), ("busy_spell", busy_spell)):
        check(name, length, number(1))
    draw = np.random.default_rng(seed)
    of_loose = _spells(draw, requests, spell, spell)
    neighbour = _spells(draw, requests, busy_spell * (1 - busy) / busy, busy_spell)
    low, high = (np.where(of_loose, *pair) for pair in zip(np.log(loose), np.log(tight), strict=True))
    return Trace(np.exp(low + (high - low) * draw.random(requests)), neighbour, seed)


def _spells(draw: np.random.Generator, count: int, off: float, on: float) -> NDArray[np.bool_]:
    """Draw alternating off and on spells, with these mean lengths."""
    found: list[bool] = []
    now = bool(draw.random() < on / (off + on))
    while len(found) < count:
        found += [now] * int(draw.geometric(min(1.0, 1 / (on if now else off))))
        now = not now
    return np.asarray(found[:count], bool)


@dataclass(frozen=True, eq=False)
class Measured:
    """Times and answers of each path at each request.

    Attributes:
        budgets: ``(requests,)`` in milliseconds.
        times: ``(requests, paths)`` milliseconds.
        right: ``(requests, paths)`` bool.
    """

    budgets: NDArray[np.float64]
    times: NDArray[np.float64]
    right: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.times.ndim != 2 or self.times.shape != self.right.shape or len(self.times) != len(self.budgets):
            raise ValueError(
                f"times {self.times.shape}, right {self.right.shape}, budgets {self.budgets.shape}: must be "
                "(requests, paths) twice, and (requests,)"
            )

    @property
    def in_time(self) -> NDArray[np.bool_]:
        """``(requests, paths)``: whether the path finished within the budget."""
        return self.times <= self.budgets[:, None]

    def outcome(self, chosen: Chosen) -> NDArray[np.bool_]:
        """``(requests,)``: whether the ``chosen`` path answered right and in time."""
        rows = np.arange(len(chosen))
        return (chosen != NONE) & (self.right & self.in_time)[rows, chosen]


# --- policies --------------------------------------------------------------------------------------------------


def fixed(measured: Measured) -> Chosen:
    """Choose the one path that answers most requests right and in time."""
    hits = (measured.right & measured.in_time).sum(0)
    return np.full(len(measured.budgets), int(hits.argmax()), np.int64)


def in_time(measured: Measured, order: Sequence[int]) -> Chosen:
    """Choose the first path in ``order`` (the most accurate first) that is in time."""
    return _first(measured.in_time, order)


def oracle(measured: Measured) -> Chosen:
    """Choose any path that is right and in time."""
    return _first(measured.right & measured.in_time, range(measured.times.shape[1]))


def by_needs(
    measured: Measured, order: Sequence[int], profile: NDArray[np.float64], *, share: float = 0.995, kept: int = 1000
) -> Chosen:
    """Choose the first path in ``order`` (the most accurate first) whose times kept the budget in a ``share`` of runs.

    Only observable times are used: a path's ``profile`` ``(runs, paths)`` and its times when it was chosen, the newest
    ``kept`` of them. This is the rule of :class:`polypath.deploy.AnytimePredictor`, without retries.
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
    """A figure and its bootstrap interval."""

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
    """Compute the mean of ``outcome`` ``(requests,)``, with its interval by the moving-block bootstrap (Künsch 1989).

    Requests of one spell are similar, so blocks of ``block`` consecutive requests are resampled, not single requests.
    If ``outcome`` is the difference of two outcomes on the same requests, the result is the gain with its paired
    interval.

    Raises:
        ValueError: no outcome.
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
    """Compute the share of a box of log time and error that the paths dominate, 0 to 1.

    Args:
        ms: milliseconds of each path, ``(paths,)``.
        errors: in percent, ``(paths,)``.
        box: least and largest milliseconds, and the largest error. A path dominates all points that are slower and have
            a larger error.

    Raises:
        ValueError: an empty box.
    """
    low, high, worst = box
    if not 0 < low < high or not worst > 0:
        raise ValueError(f"box = {box}: must be two ascending numbers of milliseconds and an error, all above 0")
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

    With the same seed, two networks that answered the same images get the same images in each draw. So the difference
    of their hypervolumes is paired.

    Args:
        times: ``(runs, paths)`` milliseconds. The median over runs is used.
        right: ``(images, paths)``.
    """
    draw = np.random.default_rng(seed)
    found = np.empty(draws + 1)
    for i in range(draws + 1):
        images = draw.integers(0, len(right), len(right)) if i else np.arange(len(right))
        runs = draw.integers(0, len(times), len(times)) if i else np.arange(len(times))
        found[i] = hypervolume(np.median(times[runs], 0), 100.0 * (1.0 - right[images].mean(0)), box)
    return found


def interval_of(draws: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Return the interval of bootstrap draws. The first draw is the figure itself."""
    return _interval(float(draws[0]), draws[1:], level)


def _interval(value: float, draws: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(value, low, high)
