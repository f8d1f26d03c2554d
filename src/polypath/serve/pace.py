"""How fast refusals are given: at once, unless there are far more of them than answers.

Clients that come again the moment they are refused, instead of after ``Retry-After``, cost more than those that are
answered: their refusals keep the event loop and the interpreter's lock busy, so that decoding, inference and answers
wait for both, and fewer and fewer are in time. A refusal that is held back for a while holds its client back with it.
All refusals are paced alike, those of bad requests and of connections above their limit too: their clients can be as
hasty.
"""

from __future__ import annotations

from collections import deque

LEAST_PER_S = 250.0  # refusals that are always at once
SHARE = 1.0  # times the answers are as well; at twice the capacity there are as many refusals as answers
BURST_S = 0.25  # that come in less time may be ahead of their rate
LONGEST_S = 4.0  # that a refusal is held back: a thousand connections come again 250 times a second then
WINDOW = 256  # answers by which their rate is known
CHEAP = 0.6  # what a refusal counts that was decided before h11 read it; it costs less, see docs/decisions.md
PRESSED_S = 1.0  # after a refusal: how long the next requests are looked at for one that is as cheap


class Pace:
    """Moments are seconds of one clock, the caller's."""

    def __init__(self) -> None:
        self._answers: deque[float] = deque(maxlen=WINDOW)
        self._next = self._refused = float("-inf")

    def answered(self, now: float) -> None:
        """A request was answered."""
        self._answers.append(now)

    def hold(self, now: float, cost: float = 1.0) -> float:
        """Seconds to wait before a request is refused, which is counted as so many refusals."""
        self._refused = now
        self._next = max(self._next + cost / self.rate(now), now - BURST_S)
        held = min(LONGEST_S, max(0.0, self._next - now))
        self._next = min(self._next, now + LONGEST_S)
        return held

    def pressed(self, now: float) -> bool:
        """Whether there was a refusal lately, so that there may be more."""
        return now - self._refused < PRESSED_S

    def rate(self, now: float) -> float:
        """Refusals a second that are given."""
        if len(self._answers) < 2 or now <= self._answers[0]:
            return LEAST_PER_S
        return max(LEAST_PER_S, SHARE * len(self._answers) / (now - self._answers[0]))
