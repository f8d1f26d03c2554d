"""Whether replicas elsewhere will answer in time: by how many requests are out, and how fast answers have come lately.

What a replica does is its own affair; between here and there a request costs time that no replica sees. So each request
that comes back tells what an answer takes: its own time, shared among the answers that came back meanwhile. Without
other requests that is the whole way, in a crowd it is the inverse of the throughput. One that is out alone is always
tried, so times of a crowd keep nothing out once it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from polypath.deploy.latency import Recent

ROOM = 1.3  # times what is expected: times vary, and an answer that is late has cost as much as one in time


@dataclass(frozen=True)
class Sent:
    """A request that is out: since when, and how many answers had come back by then."""

    at: float
    answers: int


class Crowd:
    """Requests that are out. Moments are seconds of one clock, the caller's."""

    def __init__(self) -> None:
        self.out = 0
        self._answers = 0
        self._seconds = Recent(kept=32)  # of an answer

    def expected(self, now: float) -> float:
        """Seconds until a request that is sent now is answered, behind those that are out."""
        if not self.out:
            return 0.0
        lately = self._seconds.quantiles(now)  # of too few it says nothing: the first ones find things cold
        return 0.0 if lately is None else ROOM * lately[0] * (self.out + 1)

    def send(self, now: float) -> Sent:
        self.out += 1
        return Sent(now, self._answers)

    def back(self, sent: Sent, now: float, *, answered: bool) -> None:
        """A request is out no more: it was answered, or is waited for no longer."""
        self.out -= 1
        self._answers += answered
        self._seconds.add((now - sent.at) / max(1, self._answers - sent.answers), now)
