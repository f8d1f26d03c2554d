"""Estimates whether remote replicas will answer in time, by the requests in flight and the rate of recent answers.

A replica cannot see the time that a request takes between here and there. So each request that returns gives an
estimate of the time of an answer: its own time, divided by the number of answers meanwhile. Without other requests that
is the round trip; with many it is the inverse of the throughput. A request without others in flight is always tried, so
times of a crowd refuse nothing once it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from polypath.deploy.latency import Recent

ROOM = 1.3  # factor on expected times: times vary, and a late answer costs as much as one in time


@dataclass(frozen=True)
class Sent:
    """A request in flight: when it was sent, and how many answers had come back by then."""

    at: float
    answers: int


class Crowd:
    """Requests in flight. Times are seconds of one clock, the caller's."""

    def __init__(self) -> None:
        self.out = 0
        self._answers = 0
        self._seconds = Recent(kept=32)  # of an answer

    def expected(self, now: float) -> float:
        """Seconds until a request that is sent now is answered, behind those in flight."""
        if not self.out:
            return 0.0
        lately = self._seconds.quantiles(now)  # None for few: the first ones are slow, as nothing is warm
        return 0.0 if lately is None else ROOM * lately[0] * (self.out + 1)

    def send(self, now: float) -> Sent:
        self.out += 1
        return Sent(now, self._answers)

    def back(self, sent: Sent, now: float, *, answered: bool) -> None:
        """A request is no longer in flight: it was answered, or nothing waits for it any more."""
        self.out -= 1
        self._answers += answered
        self._seconds.add((now - sent.at) / max(1, self._answers - sent.answers), now)
