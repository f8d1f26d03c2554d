"""How long a path takes here: measured once, then kept true by what is observed.

What a path *needs* is the 99th percentile of its newest thousand times, measured ones and observed ones alike. So a
slower machine is noticed after some ten answers, and a single pause changes nothing. A path that is not used any more
because it became slow is believed its measured times again after a while, and so tried: a quarter of a second at first,
twice as long each time it fails.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

KEPT = 1000  # newest times that count, are reported and stored
PATIENCE, LONGEST = 0.25, 60.0  # seconds before a slow path is tried again
CALM = 300  # answers at its old speed after which a path's patience is as at first


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
class Clock:
    """The times of one path at one batch size, in milliseconds; threads may share it.

    Args:
        profile: measured ones, in their order.
    """

    profile: list[float]
    now: Callable[[], float] = time.monotonic
    _patience: float = field(default=PATIENCE, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.profile, self._last = self.profile[-KEPT:], self.now()
        self._believe_profile()

    def _believe_profile(self) -> None:
        self._newest = deque(self.profile)
        self._ordered = sorted(self.profile)
        self._usual = self._first = self._p99()
        self._seen = 0

    def _p99(self) -> float:
        return self._ordered[-1 - len(self._ordered) // 100]

    def observe(self, ms: float) -> None:
        with self._lock:
            self._last = self.now()
            self._seen += 1
            self._newest.append(ms)
            insort(self._ordered, ms)
            if len(self._newest) > KEPT:
                del self._ordered[bisect_left(self._ordered, self._newest.popleft())]
            self._usual = self._p99()
            if self._seen >= CALM and self._usual <= self._first:
                self._patience = PATIENCE

    @property
    def needs(self) -> float:
        """The 99th percentile; of fewer than a hundred times, the largest."""
        if self._usual > self._first and self.now() - self._last > self._patience:
            with self._lock:
                self._patience = min(2.0 * self._patience, LONGEST)
                self._believe_profile()
        return self._usual

    @property
    def timing(self) -> Timing:
        plain = Timing.of(self.samples())
        return Timing(plain.p50, plain.p95, self.needs, plain.samples)

    def samples(self) -> list[float]:
        """What to store: the newest times, in their order."""
        with self._lock:
            return [round(t, 5) for t in self._newest]
