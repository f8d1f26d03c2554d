"""The rate of refusals: they are sent at once, unless there are far more of them than answers.

Clients that retry at once, instead of after ``Retry-After``, cost more than those that are answered. Their refusals
keep the event loop and the interpreter's lock busy, so that decoding, inference and answers wait for both, and fewer
and fewer are in time. Delaying a refusal delays its client's next attempt. All refusals are paced alike, also those of
bad requests and of connections above their limit, since their clients may retry as fast.
"""

from __future__ import annotations

from collections import deque

LEAST_PER_S = 250.0  # refusals a second that are always sent at once
SHARE = 1.0  # refusals allowed per answer; at twice the capacity there are as many refusals as answers
BURST_S = 0.25  # by which refusals may be ahead of their rate
LONGEST_S = 4.0  # that a refusal is held back: a thousand connections then retry 250 times a second
WINDOW = 256  # answers from which their rate is computed
CHEAP = 0.6  # how much a refusal counts that was decided before h11 read it; it costs less, see docs/decisions.md
PRESSED_S = 1.0  # after a refusal: how long requests are checked for one that can be refused as cheaply


class Pace:
    """The rate of refusals. Times are seconds of one clock, the caller's."""

    def __init__(self) -> None:
        self._answers: deque[float] = deque(maxlen=WINDOW)
        self._next = self._refused = float("-inf")

    def answered(self, now: float) -> None:
        """A request was answered."""
        self._answers.append(now)

    def hold(self, now: float, cost: float = 1.0) -> float:
        """Seconds to wait before sending a refusal, which counts as ``cost`` refusals."""
        self._refused = now
        self._next = max(self._next + cost / self.rate(now), now - BURST_S)
        held = min(LONGEST_S, max(0.0, self._next - now))
        self._next = min(self._next, now + LONGEST_S)
        return held

    def pressed(self, now: float) -> bool:
        """Whether there was a refusal lately, so that more are likely."""
        return now - self._refused < PRESSED_S

    def rate(self, now: float) -> float:
        """The refusals a second that are allowed."""
        if len(self._answers) < 2 or now <= self._answers[0]:
            return LEAST_PER_S
        return max(LEAST_PER_S, SHARE * len(self._answers) / (now - self._answers[0]))
