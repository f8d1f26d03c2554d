"""Estimates how long a path takes on this machine, from a short profile and from every time that is observed later.

The predictor and the service's admission have different aims, so they use different figures:

``needs``   the 99.5th percentile of the newest thousand times, for the predictor. One answer in a hundred may be late,
            and half of the late answers are reserved for periods in which the machine is slow.
``recent``  the median and 95th percentile of the last 64 times, none older than 20 s, for admission. The simulated
            queue runs at the machine's current speed. So after a slow period, requests are soon admitted again.
``paces``   the last 32 observed times, divided by the median time of their path in the profile, for answers that may be
            late. They show how likely each path is in time at the machine's current speed.

A profile has the weight of ``TRUSTED`` times, even if it has fewer measurements. So a single late answer changes
nothing, but three late answers raise a path's estimated time.

A path that seems too slow is no longer used, and so no longer timed. The path is retried with exponential back-off if
its measured times, without the slowest 2%, would fit. These times then have the weight of ``RETRIED`` times. A second
late answer ends the retry, and the wait before the next retry is three times as long. If the paths in use are faster
than in their profile, the machine was busy during the profile. Then all paths of the profile are assumed to be faster.

Times of a busy machine are recognised by their spread (:func:`disturbed`) and are not stored. If a profile is still
disturbed when measured again, only its undisturbed times count, with the weight of ``RETRIED`` times. A path is then
used at first, and dropped after its second late answer.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

KEPT = 1000  # number of newest times that are used, reported and stored
NEEDED = 0.995  # the quantile of these times that is taken as the time that a path needs
LIKELY = 0.98  # the fastest share of the measured times, which counts when a path is retried
TRUSTED, RETRIED = 500, 200  # weight of a profile, in times: at first, and when a slow path is retried
PATIENCE, LONGER, LONGEST = (
    10,
    3,
    60.0,
)  # wait before a retry, in run times of the path; its growth factor; its limit in s
SETTLED = 300  # number of answers at its first speed after which a path's wait before a retry is reset
# the largest ``NEEDED`` quantile of undisturbed times: FAR · q or q + CLOSE_MS, where q is their 10th percentile
FAR, CLOSE_MS = 4.0, 1.0
CALM = 2.0  # times of a disturbed profile count up to this multiple of their 10th percentile
FEW = 30  # a session with at least this many times is judged by them alone, otherwise together with earlier times
PACES = 32  # number of newest paces: fewer react faster to a busy machine, but estimate worse
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
    """Return whether the slowest times are far above the fastest, as on a busy machine."""
    fast, needed = np.quantile(ms, (0.1, NEEDED), method=SEEN)
    return bool(needed > max(FAR * fast, fast + CLOSE_MS))


def undisturbed(ms: Sequence[float]) -> list[float]:
    """Return the times that were not disturbed by a busy machine."""
    fast = float(np.quantile(ms, 0.1, method=SEEN))
    return [took for took in ms if took <= max(CALM * fast, fast + CLOSE_MS)]


def spread(ms: Sequence[float]) -> float:
    """Return the ``NEEDED`` quantile divided by the 10th percentile. A larger ratio means a busier machine."""
    fast, needed = np.quantile(ms, (0.1, NEEDED), method=SEEN)
    return float(needed / fast)


class Recent:
    """The median and 95th percentile of recent values.

    Args:
        kept: number of newest values that are used.
        enough: minimum number of values for computing quantiles.
        seconds: age above which a value no longer counts.
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
        """Return the smallest of the recent values, or None if there are no values."""
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
        ValueError: there are no measured times, or a time is not finite or not above 0.
    """

    REFRESH = 64  # ``needs`` is computed again after this many timely answers, since a single one changes it little

    def __init__(self, profile: Sequence[float], now: float, trusted: int | None = None) -> None:
        measured = np.asarray(profile[-KEPT:], np.float64)
        if not measured.size or not np.isfinite(measured).all() or measured.min() <= 0:
            raise ValueError(f"profile = {list(profile)[:3]}: must be one or more finite times above 0")
        self._lock = threading.Lock()
        self._last = now
        self.profiled = Timing.of(measured)
        self._likely = measured[measured <= np.quantile(measured, LIKELY, method=SEEN)]
        self._slowest_likely = float(self._likely.max())
        self._observed = deque(measured.tolist(), maxlen=KEPT)  # only times that really occurred
        self._recent = Recent()
        self._observations = 0
        self._stored = measured.tolist()
        self._trust(measured, max(TRUSTED, measured.size) if trusted is None else trusted)
        self._first = self.needs
        self._patience = self._least = 1e-3 * PATIENCE * self.profiled.p50

    def _trust(self, times: NDArray[np.float64], count: int) -> None:
        """Replace the contents of ``_counted`` by ``count`` values that have the same distribution as ``times``."""
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

    def retry(self, ms: float, now: float, pace: Callable[[], float]) -> bool:
        """Return whether to try the path again for a budget of ``ms`` below its present estimate: its usual times fit
        the budget, and it has not run for a long time.

        Args:
            pace: returns observed time divided by profiled time, see ``Latencies.pace``. Values above 1 count as 1.
        """
        if now - self._last <= self._patience:  # usually so; the rest takes long compared with a small network
            return False
        usual = min(1.0, pace())
        with self._lock:
            if now - self._last <= self._patience or usual * self._slowest_likely > ms:
                return False
            self._patience = min(LONGER * self._patience, LONGEST)
            self._trust(usual * self._likely, RETRIED)
        return True

    def recent(self, now: float) -> tuple[float, float] | None:
        """Return (median, 95th percentile) of the last times, or None if the path has rarely run lately."""
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
        """Return the newest times, or the last call's result if a busy machine disturbed the observed times."""
        samples = self.samples()
        session = samples[-self._observations :] if self._observations >= FEW else samples
        if not disturbed(session):
            self._stored = samples
        return self._stored


class Latencies:
    """The estimated times of all paths at one batch size.

    All paths are profiled together, so a busy machine disturbs the times of all paths.

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
        profiled = [ms / self.paths[name].profiled.p50 for name, times in profile.items() for ms in times] or [1.0]
        self._paces = deque(np.quantile(profiled, (np.arange(PACES) + 0.5) / PACES).tolist(), maxlen=PACES)

    def observe(self, path: str, ms: float, now: float, *, full: bool = True) -> None:
        """Add an observed time. The time does not count for the pace if the batch had fewer images than the profile
        (``full`` is false)."""
        latency = self.paths[path]
        latency.observe(ms, now)
        if full:
            pace = ms / latency.profiled.p50
            self._ratios.add(pace, now)
            self._paces.append(pace)

    @property
    def cheapest(self) -> str:
        """The path that needs the least time."""
        return min(self.paths, key=lambda path: self.paths[path].needs)

    def fits(self, path: str, ms: float, now: float) -> bool:
        """Return whether to use the path within ``ms``: the path needs no more time, or is due for a retry."""
        latency = self.paths[path]
        return latency.needs <= ms or latency.retry(ms, now, lambda: self.pace(now))

    def most_right(self, ms: float, accuracies: Mapping[str, float]) -> str:
        """Return the path that most likely gives a correct answer within ``ms``: the largest product of its accuracy
        and its chance to be in time. This chance is the share of the machine's last paces at which it would be in time.
        If all chances are 0, the cheapest path is returned.

        Args:
            accuracies: accuracy of each path, 0 to 1, the most accurate first. Of equal products, the first one counts.
        """
        paces = sorted(self._paces)
        best, most = None, 0
        for path, accuracy in accuracies.items():
            expected = accuracy * bisect_right(paces, ms / self.paths[path].profiled.p50)
            if expected > most:
                best, most = path, expected
        return self.cheapest if best is None else best

    def to_store(self, now: float) -> dict[str, list[float]] | None:
        """Return times by path for a later session, or None if the later session should measure again.

        It should do so if the profile was disturbed, or if the paths in use are now much faster than in the profile.
        """
        if self.origin == "busy" or self.pace(now) < BUSY:
            return None
        return {name: latency.to_store() for name, latency in self.paths.items()}

    def pace(self, now: float) -> float:
        """Return the median of observed time divided by profiled time, or 1 if there are few observations."""
        ratios = self._ratios.quantiles(now)
        return 1.0 if ratios is None else ratios[0]
