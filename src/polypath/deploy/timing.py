"""How long a path takes here: measured once, then kept true by what is observed.

A path's estimate is read from its newest observations where there are enough of them, else from the profile. What was
observed more than a minute ago is forgotten, so that a path that was slow while the machine was busy gets its chance
again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

KEPT = 512  # newest observations of a path
ENOUGH = 100  # observations that stand for themselves; fewer are pooled with the profile
FRESH = 60.0  # seconds that an observation counts
RENEWED = 16  # observations between two estimates


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a path at one batch size: percentiles over ``samples`` runs."""

    p50: float
    p95: float
    p99: float
    samples: int = 0

    @classmethod
    def of(cls, ms: Sequence[float]) -> Timing:
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
    """The times of one path at one batch size, in milliseconds.

    Args:
        profile: measured ones; thinned to :data:`ENOUGH` when they are stored.
    """

    profile: list[float]
    now: Callable[[], float] = time.monotonic
    seen: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _timing: Timing | None = None
    _until: float = 0.0
    _left: int = 0

    def observe(self, ms: float) -> None:
        self.seen.append((self.now(), ms))
        self._left -= 1

    @property
    def timing(self) -> Timing:
        """The estimate; made anew after some observations, or when old ones have to be forgotten."""
        moment = self.now()
        if self._timing is None or self._left <= 0 or moment >= self._until:
            while self.seen and self.seen[0][0] < moment - FRESH:
                self.seen.popleft()
            fresh = [ms for _, ms in self.seen]
            self._timing = Timing.of(fresh if len(fresh) >= ENOUGH else self.profile + fresh)
            self._left = RENEWED
            self._until = (self.seen[0][0] + FRESH) if self.seen else float("inf")
        return self._timing

    def samples(self) -> list[float]:
        """What to store: at most :data:`ENOUGH` times that tell the same percentiles."""
        fresh = [ms for _, ms in self.seen]
        ms = sorted(fresh if len(fresh) >= ENOUGH else self.profile + fresh)
        if len(ms) <= ENOUGH:
            return [round(v, 5) for v in ms]
        return [round(_at(ms, i / (ENOUGH - 1)), 5) for i in range(ENOUGH)]
