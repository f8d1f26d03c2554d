"""Estimates how long a path takes on this machine, from a short profile and from every time that is observed later.

The predictor and the service's admission promise different things, so each uses its own figure:

``needs``   the 99.5th percentile of the newest thousand times, for the predictor. One answer in a hundred may be late,
            and half of these are reserved for periods in which the machine is slow.
``recent``  the median and 95th percentile of the last 64 times, none older than 20 s, for admission. A queue plans with
            the machine's current speed, and a slow period must not keep requests out once it is over.

A profile has the weight of ``TRUSTED`` times, even if it measured fewer. So three late answers make a path slow, and a
single pause changes nothing.

A path that is believed to be too slow is no longer used, and so no longer timed. If its measured times, without the
slowest fiftieth, would fit, it is retried with exponential back-off. These times then have the weight of ``RETRIED``
times. A second late answer ends the retry, and the wait before the next retry is three times as long. If the paths in
use are faster than their profile, the machine was busy during the profile, and all its paths are believed to be faster.

Times of a busy machine are recognised by their spread (:func:`disturbed`) and are not stored. If a profile is still
disturbed when measured again, only its undisturbed times count, with the weight of ``RETRIED`` times. A path is then
used at first, and dropped after its second late answer.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

KEPT = 1000  # number of newest times that are used, reported and stored
NEEDED = 0.995  # the quantile of these times that is taken as the time that a path needs
LIKELY = 0.98  # share of the measured times, the fastest, that are believed when a path is retried
TRUSTED, RETRIED = 500, 200  # weight of a profile, in times: at first, and when a slow path is retried
PATIENCE, LONGER, LONGEST = 10, 3, 60.0  # runs before a slow path is retried; growth factor; limit in seconds
SETTLED = 300  # answers at its first speed after which a path's wait for a retry is reset
FAR, CLOSE_MS = 4.0, 1.0  # how far the ``NEEDED`` quantile may be above the fastest tenth: a factor, or ms
CALM = 2.0  # a disturbed profile's times count up to this factor times its fastest tenth
FEW = 30  # a session's times are judged alone if there are at least this many, else together with earlier times
BUSY = 0.8  # if paths now take less than this share of their profiled time, the machine was busy during the profile
Origin = Literal["measured", "stored", "busy"]
"""Where a profile comes from: measured now, stored by an earlier session, or measured while the machine was busy."""
SEEN = "inverted_cdf"  # a method of numpy.quantile that returns an observed time instead of an interpolated one


@dataclass(frozen=True)
class Timing:
    """Percentiles of the milliseconds that a path takes at one batch size, over ``samples`` runs."""

    p50: float
    p95: float
    p99: float
    samples: int = 0

    @classmethod
    def of(cls, ms: Sequence[float] | NDArray[np.float64]) -> Timing:
        """Compute the percentiles of some times, with linear interpolation."""
        p50, p95, p99 = np.percentile(ms, (50, 95, 99)).tolist()
        return cls(p50, p95, p99, len(ms))


def disturbed(ms: Sequence[float] | NDArray[np.float64]) -> bool:
    """Return whether the machine was busy while these times were measured: the slowest are far from the fastest."""
    fast, needed = np.quantile(ms, (0.1, NEEDED), method=SEEN)
    return bool(needed > max(FAR * fast, fast + CLOSE_MS))


def undisturbed(ms: Sequence[float]) -> list[float]:
    """Return those of the times that were measured while the machine was not busy."""
    fast = float(np.quantile(ms, 0.1, method=SEEN))
    return [took for took in ms if took <= max(CALM * fast, fast + CLOSE_MS)]


def spread(ms: Sequence[float]) -> float:
    """Return the ``NEEDED`` quantile divided by the fastest tenth. The larger it is, the busier the machine was."""
    fast, needed = np.quantile(ms, (0.1, NEEDED), method=SEEN)
    return float(needed / fast)


class Recent:
    """The median and 95th percentile of recent values.

    Args:
        kept: the number of last values that are used.
        enough: the number of values needed for quantiles.
        seconds: the age at which a value no longer counts.
    """

    REFRESH = 8  # the quantiles are computed again after this many values, or after a second

    def __init__(self, kept: int = 64, enough: int = 8, seconds: float = 20.0) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=kept)
        self._enough, self._seconds = enough, seconds
        self._valid_until, self._new = -math.inf, 0
        self._quantiles: tuple[float, float] | None = None

    def add(self, value: float, now: float) -> None:
        self._values.append((now, value))
        self._new += 1
        if self._new >= self.REFRESH:
            self._valid_until = -math.inf

    def quantiles(self, now: float) -> tuple[float, float] | None:
        """Return (median, 95th percentile), or None if there are too few values."""
        if now >= self._valid_until:
            values = [value for at, value in list(self._values) if now - at <= self._seconds]  # other threads may add
            self._quantiles = None
            if len(values) >= self._enough:
                median, high = np.quantile(values, (0.5, 0.95), method=SEEN).tolist()
                self._quantiles = median, high
            self._valid_until, self._new = now + 1.0, 0
        return self._quantiles

    def fastest(self, now: float) -> float | None:
        """Return the smallest of the recent values, even if there is only one; None if there are none."""
        return min((value for at, value in list(self._values) if now - at <= self._seconds), default=None)


class PathLatency:
    """The estimated milliseconds of one path at one batch size. Several threads may use it.

    ``now`` is always the current time in seconds, by a clock of the caller's choice.

    Args:
        profile: measured milliseconds, in order of measurement.
        trusted: the weight of the profile, as a number of times; None means ``TRUSTED`` or the number of measured
            times, whichever is larger.

    Attributes:
        needs: the 99.5th percentile of the newest thousand times, including those of the profile.
        profiled: the percentiles of the profile.

    Raises:
        ValueError: there are no measured times, or some are not finite or not above 0.
    """

    REFRESH = 64  # ``needs`` is computed again after this many answers in time, as each of them changes it little

    def __init__(self, profile: Sequence[float], now: float, trusted: int | None = None) -> None:
        measured = np.asarray(profile[-KEPT:], np.float64)
        if not measured.size or not np.isfinite(measured).all() or measured.min() <= 0:
            raise ValueError(f"profile {list(profile)[:3]}: must be times above 0, at least one")
        self._lock = threading.Lock()
        self._last = now
        self.profiled = Timing.of(measured)
        self._likely = measured[measured <= np.quantile(measured, LIKELY, method=SEEN)]
        self._observed = deque(measured.tolist(), maxlen=KEPT)  # only times that really occurred
        self._recent = Recent()
        self._observations = 0
        self._stored = measured.tolist()
        self._trust(measured, max(TRUSTED, measured.size) if trusted is None else trusted)
        self._first = self.needs
        self._patience = self._least = 1e-3 * PATIENCE * self.profiled.p50

    def _trust(self, times: NDArray[np.float64], count: int) -> None:
        """Start again from ``count`` times with the distribution of ``times``."""
        shares = (np.arange(count) + 0.5) / count
        spread = np.random.default_rng(0).permutation(np.quantile(times, shares, method=SEEN))
        self._counted = deque(spread.tolist(), maxlen=KEPT)
        self._since_trust = 0
        self._refresh()

    def _refresh(self) -> None:
        self.needs = float(np.quantile(self._counted, NEEDED, method=SEEN))
        self._stale = 0

    def observe(self, ms: float, now: float) -> None:
        """Add an observed time."""
        with self._lock:
            self._last = now
            self._observed.append(ms)
            self._observations += 1
            self._counted.append(ms)
            self._recent.add(ms, now)
            self._since_trust += 1
            self._stale += 1
            if ms > self.needs or self._stale >= self.REFRESH:
                self._refresh()
            if self._since_trust >= SETTLED and self.needs <= self._first:
                self._patience = self._least

    def retry(self, ms: float, now: float, pace: float) -> bool:
        """Return whether to try the path again within ``ms`` although it needs more, since it was long unused.

        Args:
            pace: observed time divided by profiled time, see ``Latencies.pace``. Values above 1 count as 1.
        """
        likely = min(1.0, pace) * self._likely
        with self._lock:
            if now - self._last <= self._patience or likely.max() > ms:
                return False
            self._patience = min(LONGER * self._patience, LONGEST)
            self._trust(likely, RETRIED)
        return True

    def recent(self, now: float) -> tuple[float, float] | None:
        """Return (median, 95th percentile) of the last times, or None if the path has hardly run lately."""
        return self._recent.quantiles(now)

    @property
    def timing(self) -> Timing:
        """The percentiles of the newest times, measured and observed."""
        return Timing.of(self.samples())

    def samples(self) -> list[float]:
        """Return the newest times, in order."""
        with self._lock:
            return [round(t, 5) for t in self._observed]

    def to_store(self) -> list[float]:
        """Return the newest times, or those of the last call if a busy machine disturbed the times observed since."""
        samples = self.samples()
        session = samples[-self._observations :] if self._observations >= FEW else samples
        if not disturbed(session):
            self._stored = samples
        return self._stored


class Latencies:
    """The estimated times of all paths at one batch size. All were profiled together, so a busy machine affected all.

    Args:
        profile: measured milliseconds by path.
        now: as for :class:`PathLatency`.
        origin: where the profile comes from. Of a ``busy`` profile, only the undisturbed times count.
    """

    def __init__(self, profile: Mapping[str, Sequence[float]], now: float, origin: Origin = "measured") -> None:
        self.origin: Origin = origin
        if origin == "busy":
            self.paths = {name: PathLatency(undisturbed(times), now, RETRIED) for name, times in profile.items()}
        else:
            self.paths = {name: PathLatency(times, now) for name, times in profile.items()}
        self._ratios = Recent(enough=32, seconds=math.inf)

    def observe(self, path: str, ms: float, now: float, *, full: bool = True) -> None:
        """Add an observed time. If not ``full`` (fewer images than profiled), it does not count for the pace."""
        latency = self.paths[path]
        latency.observe(ms, now)
        if full:
            self._ratios.add(ms / latency.profiled.p50, now)

    def fits(self, path: str, ms: float, now: float) -> bool:
        """Return whether to use the path within ``ms``: it needs no more time, or is due for a retry."""
        latency = self.paths[path]
        return latency.needs <= ms or latency.retry(ms, now, self.pace(now))

    def to_store(self, now: float) -> dict[str, list[float]] | None:
        """Return times by path for a later session; None if they cannot be trusted, so that it measures again.

        They cannot be trusted if the profile was disturbed, or if the paths in use are now much faster than in it.
        """
        if self.origin == "busy" or self.pace(now) < BUSY:
            return None
        return {name: latency.to_store() for name, latency in self.paths.items()}

    def pace(self, now: float) -> float:
        """Return the median of observed time divided by profiled time, or 1 if there are few observations."""
        ratios = self._ratios.quantiles(now)
        return 1.0 if ratios is None else ratios[0]
