"""How long a path takes here: measured once, then kept true by what is observed.

What a path *needs* is the 99.5th percentile of its newest thousand times: one answer of a hundred may be late, and half
of those are kept for spells in which the machine is slow. Measured times count as if there were ``TRUSTED`` of them,
however few a short profile took, so three late answers make a path slow and a single pause changes nothing.

A path that is believed too slow is not used, and nothing would be learnt of it. So it is *tried* where its measured
times, without the slowest fiftieth, would fit, and it rested for the time of ten runs. It then has ``TRIED`` times to
its credit: a second late answer ends the try, and the next one is three times as far away. If the paths that are in use
have become faster than they were measured (a machine that was busy then), all measured times are believed to have.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

KEPT = 1000  # newest times that count, are reported and stored
LATE = 200  # one of so many may take longer than a path needs
SPIKES = 50  # one of so many measured times is not believed when a path is tried
TRUSTED, TRIED = 500, 200  # times that measured ones count for: at first, and when a slow path is tried again
PATIENCE, LONGER, LONGEST = 10, 3, 60.0  # runs before a slow path is tried again; how that grows; seconds at most
CALM = 300  # answers at its old speed after which a path's patience is as at first
STRIDE = 32  # answers whose median tells the pace


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a path at one batch size over ``samples`` runs."""

    p50: float
    p95: float
    p99: float
    samples: int = 0

    @classmethod
    def of(cls, ms: Sequence[float]) -> Timing:
        """The plain percentiles of some times."""
        ordered = sorted(ms)
        p50, p95, p99 = (_at(ordered, share) for share in (0.5, 0.95, 0.99))
        return cls(p50, p95, p99, len(ordered))


def _at(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@dataclass
class Pace:
    """Times of the paths in use, in times of what was measured."""

    value: float = 1.0


@dataclass
class Clock:
    """The times of one path at one batch size, in milliseconds; threads may share it.

    Args:
        profile: measured ones, in their order.
        pace: shared by the clocks that were measured together.
    """

    profile: list[float]
    pace: Pace = field(default_factory=Pace)
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.profile, self._last = self.profile[-KEPT:], self.now()
        measured = sorted(self.profile)
        self._likely = measured[: len(measured) - len(measured) // SPIKES]
        self._true, self._stride = deque(self.profile, maxlen=KEPT), list[float]()
        self._believe(measured, max(TRUSTED, len(measured)))
        self._first, self._median = self._usual, measured[len(measured) // 2]
        self._patience = self._least = 1e-3 * PATIENCE * self._median

    def _believe(self, ordered: Sequence[float], count: int) -> None:
        """Begin with ``count`` times that are spread as ``ordered``."""
        self._ordered = [ordered[int((k + 0.5) * len(ordered) / count)] for k in range(count)]
        self._newest = deque(random.Random(0).sample(self._ordered, count))
        self._usual = self._needed()
        self._seen = 0

    def _needed(self) -> float:
        return self._ordered[-1 - len(self._ordered) // LATE]

    def observe(self, ms: float, *, full: bool = True) -> None:
        """Take a time into account; it says nothing of the pace where fewer images ran than were measured."""
        with self._lock:
            self._last = self.now()
            self._seen += 1
            self._true.append(ms)
            self._newest.append(ms)
            insort(self._ordered, ms)
            if len(self._newest) > KEPT:
                del self._ordered[bisect_left(self._ordered, self._newest.popleft())]
            self._usual = self._needed()
            if self._seen >= CALM and self._usual <= self._first:
                self._patience = self._least
            if full:
                self._stride.append(ms)
            if len(self._stride) == STRIDE:
                self.pace.value = median(self._stride) / self._median
                self._stride.clear()

    @property
    def needs(self) -> float:
        """The 99.5th percentile."""
        return self._usual

    def fits(self, ms: float) -> bool:
        """Whether the path is to be used where ``ms`` are left: it needs no more, or is to be tried."""
        if self._usual <= ms:
            return True
        if self.now() - self._last <= self._patience:
            return False
        pace = min(1.0, self.pace.value)
        if pace * self._likely[-1] > ms:
            return False
        with self._lock:
            self._patience = min(LONGER * self._patience, LONGEST)
            self._believe([pace * likely for likely in self._likely], TRIED)
        return True

    @property
    def timing(self) -> Timing:
        return Timing.of(self.samples())

    def samples(self) -> list[float]:
        """What to store: the newest times, in their order."""
        with self._lock:
            return [round(t, 5) for t in self._true]
