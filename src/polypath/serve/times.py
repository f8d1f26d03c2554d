"""The times that admission plans with: the paths' latencies in seconds, and the time of a reply.

Recent times of a path come first. For a batch size that was not run lately, its profile is scaled by how other sizes
compare with theirs: a profile of a busy machine is too high, and would keep its sizes from ever being run.
"""

from __future__ import annotations

from collections.abc import Mapping

from polypath.deploy.latency import Latencies, Recent

LEAST_REPLY_S, FIRST_REPLY_S = 0.002, 0.005  # the least to plan with; and before any reply was measured
LEAST_LAG_S = 0.003  # less is the timer's own inaccuracy


class Times:
    """Seconds of a batch.

    Args:
        latencies: by batch size, each with the same paths. The sizes are those that batches may have, including 1.
            If they are a predictor's, both it and the service add their times.

    Raises:
        ValueError: no size 1, sizes with different paths.
    """

    def __init__(self, latencies: Mapping[int, Latencies]) -> None:
        if 1 not in latencies:
            raise ValueError(f"latencies: expected batch size 1 among the sizes, got {sorted(latencies)}")
        self.sizes = tuple(sorted(latencies))
        self.paths = tuple(latencies[1].paths)
        for size, row in latencies.items():
            if set(row.paths) != set(self.paths):
                raise ValueError(
                    f"latencies: batch size {size} has paths {sorted(row.paths)}, size 1 {sorted(self.paths)}"
                )
        self._latencies = dict(latencies)
        self._ratios = Recent()  # of observed times to the profile's median, over all paths and sizes
        self._replies = Recent()
        self._lags = Recent(kept=16)  # 0.4 s of them, so that an idle event loop is noticed soon

    def observe(self, path: str, size: int, seconds: float, now: float) -> None:
        """A batch of ``size`` images through ``path`` took ``seconds``."""
        row = self._latencies[size]
        row.observe(path, 1e3 * seconds, now)
        self._ratios.add(1e3 * seconds / row.paths[path].profiled.p50, now)

    def observe_reply(self, seconds: float, now: float) -> None:
        """From a batch's end to an answer handed to its connection."""
        self._replies.add(seconds, now)

    def observe_lag(self, seconds: float, now: float) -> None:
        """How late the event loop ran something that was due."""
        self._lags.add(seconds, now)

    def lag(self, now: float) -> float:
        """How many seconds a request may have waited until it was read."""
        recent = self._lags.quantiles(now)
        return 0.0 if recent is None or recent[1] < LEAST_LAG_S else recent[1]

    def idle(self, path: str, now: float) -> float:
        """The time of one image on an idle machine: the profile's p99, or ``high`` if that is less."""
        return min(1e-3 * self._latencies[1].paths[path].profiled.p99, self.high(path, 1, now))

    def typical(self, path: str, size: int, now: float) -> float:
        """The median time."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[0]
        ratios = self._ratios.quantiles(now)
        return 1e-3 * latency.profiled.p50 * (ratios[0] if ratios is not None else 1.0)

    def high(self, path: str, size: int, now: float) -> float:
        """The time to plan with: the recent 95th percentile. Without recent runs, the profile's median times the 95th
        percentile of all observed ratios; without any observations, the profile's p99."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[1]
        if (ratios := self._ratios.quantiles(now)) is not None:
            return 1e-3 * latency.profiled.p50 * ratios[1]
        return 1e-3 * latency.profiled.p99

    def idle_reply(self, now: float) -> float:
        """The time of a reply on an idle machine: the least observed, at most ``FIRST_REPLY_S``."""
        seen = self._replies.fastest(now)
        return FIRST_REPLY_S if seen is None else min(FIRST_REPLY_S, max(LEAST_REPLY_S, seen))

    def reply(self, now: float) -> float:
        """The time to plan with from a batch's end to its answers, in seconds."""
        recent = self._replies.quantiles(now)
        return max(LEAST_REPLY_S, recent[1]) if recent is not None else FIRST_REPLY_S
