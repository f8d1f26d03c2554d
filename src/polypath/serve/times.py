"""How long a batch takes on this machine, per path and batch size: the profile, corrected by what was seen lately.

Old observations expire. Without that, a path that was slow for a moment would be refused for ever, since nothing
would run it again. For the same reason a size that was not run lately is judged by what others did against their
profile: a profile that was made on a busy machine is too high, and would keep its sizes from ever being tried.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence

KEPT, ENOUGH = 64, 8  # observations kept; how many are needed to trust them above the profile
EXPIRE_S = 20.0
REFRESH = 8  # a quantile is computed anew after so many observations


class Window:
    """The last :data:`KEPT` values, none older than :data:`EXPIRE_S`, and two quantiles of them."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._fresh_until, self._new = 0.0, 0
        self._quantiles: tuple[float, float] | None = None

    def add(self, value: float, now: float) -> None:
        self._seen.append((now, value))
        self._new += 1
        if self._new >= REFRESH:
            self._fresh_until = 0.0

    def quantiles(self, now: float) -> tuple[float, float] | None:
        """(median, 95th percentile), or None with fewer than :data:`ENOUGH` fresh values."""
        if now >= self._fresh_until:
            seen = list(self._seen)  # at once: another thread may be adding
            values = sorted(value for at, value in seen if now - at <= EXPIRE_S)
            self._quantiles = (_at(values, 0.5), _at(values, 0.95)) if len(values) >= ENOUGH else None
            self._fresh_until, self._new = now + 1.0, 0
        return self._quantiles


def _at(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


class Times:
    """Seconds of a batch.

    Args:
        profile: batch size → path → (p50, p99), in seconds; every size has the same paths. The sizes are those that
            batches may have, 1 among them.

    Raises:
        ValueError: no size 1, sizes with different paths, times that are no positive numbers.
    """

    def __init__(self, profile: Mapping[int, Mapping[str, tuple[float, float]]]) -> None:
        if 1 not in profile:
            raise ValueError(f"profile: expected batch size 1 among its sizes, got {sorted(profile)}")
        self.sizes = tuple(sorted(profile))
        self.paths = tuple(profile[1])
        for size, of_path in profile.items():
            if set(of_path) != set(self.paths):
                raise ValueError(f"profile: batch size {size} has paths {sorted(of_path)}, size 1 {sorted(self.paths)}")
            for path, (p50, p99) in of_path.items():
                if not 0 < p50 <= p99 < math.inf:
                    raise ValueError(f"profile: path {path!r} at batch {size} has p50 {p50!r} s and p99 {p99!r} s")
        self._profile = {(path, size): both for size, of_path in profile.items() for path, both in of_path.items()}
        self._seen = {key: Window() for key in self._profile}
        self._ratio = Window()  # of what is seen to the profile's median, over everything
        self._reply = Window()

    def observe(self, path: str, size: int, seconds: float, now: float | None = None) -> None:
        """A batch of ``size`` images through ``path`` took ``seconds``."""
        now = time.perf_counter() if now is None else now
        self._seen[path, size].add(seconds, now)
        self._ratio.add(seconds / self._profile[path, size][0], now)

    def observe_reply(self, seconds: float, now: float | None = None) -> None:
        """From a batch's end to an answer handed to its connection."""
        self._reply.add(seconds, time.perf_counter() if now is None else now)

    def idle(self, path: str, now: float) -> float:
        """What one image needs when the machine is left alone: the profile's p99, or what is seen if that is less."""
        return min(self._profile[path, 1][1], self.high(path, 1, now))

    def typical(self, path: str, size: int, now: float) -> float:
        """The median."""
        if (seen := self._seen[path, size].quantiles(now)) is not None:
            return seen[0]
        ratio = self._ratio.quantiles(now)
        return self._profile[path, size][0] * (ratio[0] if ratio is not None else 1.0)

    def high(self, path: str, size: int, now: float) -> float:
        """What to reckon with: the 95th percentile seen lately; else the profile's median by the 95th percentile of
        everything against its profile; else, with nothing seen, the profile's p99."""
        if (seen := self._seen[path, size].quantiles(now)) is not None:
            return seen[1]
        if (ratio := self._ratio.quantiles(now)) is not None:
            return self._profile[path, size][0] * ratio[1]
        return self._profile[path, size][1]

    def reply(self, now: float) -> float:
        """What to reckon with from a batch's end to its answers, in seconds."""
        seen = self._reply.quantiles(now)
        return max(0.002, seen[1]) if seen is not None else 0.005
