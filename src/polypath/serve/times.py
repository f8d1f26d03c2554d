"""How long a batch takes, as admission counts on it: the paths' latencies in seconds, and the time of a reply.

What a path has done lately comes first. A size that was not run lately is judged by what others did against their
profile, since a profile that was made on a busy machine is too high, and would keep its sizes from ever being run.
"""

from __future__ import annotations

from collections.abc import Mapping

from polypath.deploy.latency import Latencies, Recent

LEAST_REPLY_S, FIRST_REPLY_S = 0.002, 0.005  # that are counted on, whatever is seen; and before any was
LEAST_LAG_S = 0.003  # less is a timer's own


class Times:
    """Seconds of a batch.

    Args:
        latencies: by batch size, each with the same paths. The sizes are those that batches may have, 1 among them.
            Where they are a predictor's, it learns from the service, and the service from it.

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
        self._ratios = Recent()  # of what is observed to the profile's median, over all paths and sizes
        self._replies = Recent()
        self._lags = Recent(kept=16)  # 0.4 s of them: an idle event loop is soon known as one

    def observe(self, path: str, size: int, seconds: float, now: float) -> None:
        """A batch of ``size`` images through ``path`` took ``seconds``."""
        row = self._latencies[size]
        row.observe(path, 1e3 * seconds, now)
        self._ratios.add(1e3 * seconds / row.paths[path].profiled.p50, now)

    def observe_reply(self, seconds: float, now: float) -> None:
        """From a batch's end to an answer handed to its connection."""
        self._replies.add(seconds, now)

    def observe_lag(self, seconds: float, now: float) -> None:
        """How late the event loop came to something that was due."""
        self._lags.add(seconds, now)

    def lag(self, now: float) -> float:
        """How long a request may have waited, unseen, until it was read, in seconds."""
        recent = self._lags.quantiles(now)
        return 0.0 if recent is None or recent[1] < LEAST_LAG_S else recent[1]

    def idle(self, path: str, now: float) -> float:
        """What one image needs when the machine is left alone: the profile's p99, or what is seen if that is less."""
        return min(1e-3 * self._latencies[1].paths[path].profiled.p99, self.high(path, 1, now))

    def typical(self, path: str, size: int, now: float) -> float:
        """The median."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[0]
        ratios = self._ratios.quantiles(now)
        return 1e-3 * latency.profiled.p50 * (ratios[0] if ratios is not None else 1.0)

    def high(self, path: str, size: int, now: float) -> float:
        """What to count on: the 95th percentile seen lately; else the profile's median by the 95th percentile of
        everything against its profile; else, with nothing seen, the profile's p99."""
        latency = self._latencies[size].paths[path]
        if (recent := latency.recent(now)) is not None:
            return 1e-3 * recent[1]
        if (ratios := self._ratios.quantiles(now)) is not None:
            return 1e-3 * latency.profiled.p50 * ratios[1]
        return 1e-3 * latency.profiled.p99

    def idle_reply(self, now: float) -> float:
        """What a reply needs when the machine is left alone: the least seen, at most what is counted on at first."""
        seen = self._replies.fastest(now)
        return FIRST_REPLY_S if seen is None else min(FIRST_REPLY_S, max(LEAST_REPLY_S, seen))

    def reply(self, now: float) -> float:
        """What to count on from a batch's end to its answers, in seconds."""
        recent = self._replies.quantiles(now)
        return max(LEAST_REPLY_S, recent[1]) if recent is not None else FIRST_REPLY_S
