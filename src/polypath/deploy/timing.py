"""How long a path takes here: measured once, then kept true by what is observed.

What a path *needs* is its 99th percentile, estimated as the median of the largest times of the newest blocks, a hundred
times each (for independent times, the 99.3th percentile). A pause of the machine falls into one block and does not move
the median; when half of the blocks are slow, so is the path. Two things go faster. As soon as ten of the last twenty
times are above the estimate, the largest of these twenty is taken. A path that is not used any more because it was slow
is believed its older times again after a while, and so tried: a second at first, twice as long each time it fails.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median_low

BLOCK = 100  # times of which the largest counts
BLOCKS = 5  # newest blocks whose median is taken
KEPT = 300  # times that are reported and stored
RECENT, MANY = 20, 10
PATIENCE, LONGEST = 1.0, 60.0  # seconds before a slow path is tried again


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a path at one batch size over ``samples`` runs; ``p99`` is what it needs, see the module."""

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


def largest(ms: Sequence[float]) -> list[float]:
    """The largest time of each whole block, in order; of less than a block, of all."""
    whole = len(ms) // BLOCK
    if not whole:
        return [max(ms)]
    return [max(ms[i * BLOCK : (i + 1) * BLOCK]) for i in range(whole)]


@dataclass
class Clock:
    """The times of one path at one batch size, in milliseconds.

    Args:
        profile: measured ones, in their order.
    """

    profile: list[float]
    now: Callable[[], float] = time.monotonic
    seen: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self._patience, self._last = PATIENCE, self.now()
        self._forget()

    def _forget(self) -> None:
        """Believe the profile again."""
        self._blocks = deque(largest(self.profile), maxlen=BLOCKS)
        self._usual = self._first = median_low(self._blocks)
        self._block: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._slow = False

    def observe(self, ms: float) -> None:
        self._last = self.now()
        self.seen.append(ms)
        self._recent.append(ms)
        self._block.append(ms)
        if ms > self._usual or self._slow:
            self._slow = sum(t > self._usual for t in self._recent) >= MANY
        if len(self._block) >= BLOCK:
            self._blocks.append(max(self._block))
            self._block = []
            self._usual = median_low(self._blocks)
            self._slow = sum(t > self._usual for t in self._recent) >= MANY
            if self._usual <= self._first:
                self._patience = PATIENCE

    @property
    def needs(self) -> float:
        """The 99th percentile, estimated."""
        if (self._slow or self._usual > self._first) and self.now() - self._last > self._patience:
            self._patience = min(2.0 * self._patience, LONGEST)
            self._forget()
        return max(self._recent) if self._slow else self._usual

    @property
    def timing(self) -> Timing:
        ms = self.samples()
        plain = Timing.of(ms)
        return Timing(plain.p50, plain.p95, self.needs, len(ms))

    def samples(self) -> list[float]:
        """What to store: the newest times, in their order."""
        seen = list(self.seen)
        ms = seen if len(seen) >= BLOCK else self.profile + seen
        return [round(t, 5) for t in ms[-KEPT:]]
