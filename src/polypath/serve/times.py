"""Estimates the times that admission plans with: the latencies of paths, and the time of a reply.

If a path has recent times at a batch size, they are used. Otherwise the time in the profile is scaled by the ratio of
recent times to profiled times at other batch sizes. Without this scaling, a profile that was measured on a busy machine
could be so high that a batch size is never used.
"""

from __future__ import annotations

from collections.abc import Mapping

from polypath.deploy.latency import Latencies, Recent

LEAST_REPLY_S, FIRST_REPLY_S = (
    0.002,
    0.005,
)  # smallest planned time of a reply, and planned time before a reply is measured
LEAST_LAG_S = 0.003  # smaller lags are within the inaccuracy of timers


class Times:
    """An estimator of the seconds that batches and replies take.

    Args:
        latencies: the latencies of all paths, for each batch size that batches may have. Batch size 1 must be included.
            If the latencies belong to a predictor, both the predictor and the service add observed times to them.

    Raises:
        ValueError: there is no batch size 1, or batch sizes have different paths.
    """

    def __init__(self, latencies: Mapping[int, Latencies]) -> None:
        if 1 not in latencies:
            raise ValueError(f"latencies with batch sizes {sorted(latencies)}: must include batch size 1")
        self.sizes = tuple(sorted(latencies))
        self.paths = tuple(latencies[1].paths)
        for size, row in latencies.items():
            if set(row.paths) != set(self.paths):
                raise ValueError(
                    f"latencies: batch size {size} has paths {sorted(row.paths)}, but batch size 1 has "
                    f"{sorted(self.paths)}"
                )
        self._latencies = dict(latencies)
        self._ratios = Recent()  # observed times divided by the profile's median, over all paths and sizes
        self._replies = Recent()
        self._lags = Recent(kept=16)  # the lags of 0.4 s, so that an idle event loop is noticed soon

    def observe(self, path: str, size: int, seconds: float, now: float) -> None:
        """Record that a batch of ``size`` images through ``path`` took ``seconds``."""
        row = self._latencies[size]
        row.observe(path, 1e3 * seconds, now)
        self._ratios.add(1e3 * seconds / row.paths[path].profiled.p50, now)

    def observe_reply(self, seconds: float, now: float) -> None:
        """Record the time from a batch's end until an answer was passed to its connection."""
        self._replies.add(seconds, now)

    def observe_lag(self, seconds: float, now: float) -> None:
        """Record how many seconds late the event loop was."""
        self._lags.add(seconds, now)

    def lag(self, now: float) -> float:
        """Return how many seconds a request may have waited until it was read."""
        recent = self._lags.quantiles(now)
        return 0.0 if recent is None or recent[1] < LEAST_LAG_S else recent[1]

    def idle(self, path: str, now: float) -> float:
        """Return the time for one image on an idle machine: the profile's p99, or :meth:`high` if that is less."""
        return min(1e-3 * self._latencies[1].paths[path].profiled.p99, self.high(path, 1, now))

    def typical(self, path: str, size: int, now: float) -> float:
        """Return the expected median time of a batch."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[0]
        ratios = self._ratios.quantiles(now)
        return 1e-3 * latency.profiled.p50 * (ratios[0] if ratios is not None else 1.0)

    def high(self, path: str, size: int, now: float) -> float:
        """Return the time of a batch to plan with. This is the recent 95th percentile. Without recent runs it is the
        profile's median, multiplied by the 95th percentile of all observed ratios. Without any observations it is the
        profile's 99th percentile."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[1]
        if (ratios := self._ratios.quantiles(now)) is not None:
            return 1e-3 * latency.profiled.p50 * ratios[1]
        return 1e-3 * latency.profiled.p99

    def idle_reply(self, now: float) -> float:
        """Return the time of a reply on an idle machine: the smallest recent time, but at most ``FIRST_REPLY_S``."""
        seen = self._replies.fastest(now)
        return FIRST_REPLY_S if seen is None else min(FIRST_REPLY_S, max(LEAST_REPLY_S, seen))

    def reply(self, now: float) -> float:
        """Return the seconds to plan with from the end of a batch to its answers."""
        recent = self._replies.quantiles(now)
        return max(LEAST_REPLY_S, recent[1]) if recent is not None else FIRST_REPLY_S
