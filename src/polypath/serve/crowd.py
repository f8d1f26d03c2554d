"""Estimates whether remote replicas will answer in time, from the requests in flight and the rate of recent answers.

A replica cannot measure the time that a request takes on the network. So each answered request gives an estimate of the
time per answer: the time of the request, divided by the number of answers that came meanwhile. Without other requests
this is the time of a round trip; with many requests it is the inverse of the throughput. If no other request is in
flight, a request is always sent, so that times from a busy period cause no refusals after that period.
"""

from __future__ import annotations

from dataclasses import dataclass

from polypath.deploy.latency import Recent

ROOM = 1.3  # safety factor on expected times, since times vary, and a late answer costs as much as one in time


@dataclass(frozen=True)
class Sent:
    """A request in flight: when it was sent, and how many answers had returned by then."""

    at: float
    answers: int


class Crowd:
    """The requests in flight. Times are seconds, by a clock of the caller's choice."""

    def __init__(self) -> None:
        self.out = 0
        self._answers = 0
        self._seconds = Recent(kept=32)  # seconds per answer

    def expected(self, now: float) -> float:
        """Return the expected seconds until the answer to a request that is sent now, after those in flight."""
        if not self.out:
            return 0.0
        lately = self._seconds.quantiles(now)  # None if there are few answers; the first ones are slow
        return 0.0 if lately is None else ROOM * lately[0] * (self.out + 1)

    def send(self, now: float) -> Sent:
        self.out += 1
        return Sent(now, self._answers)

    def back(self, sent: Sent, now: float, *, answered: bool) -> None:
        """Record that a request is no longer in flight, because it was answered or its client no longer waits."""
        self.out -= 1
        self._answers += answered
        self._seconds.add((now - sent.at) / max(1, self._answers - sent.answers), now)
