"""Limits the rate of refusals. They are sent at once, unless there are far more refusals than answers.

Clients that retry at once, instead of after ``Retry-After``, cost more than clients that are answered. The refusals to
these clients keep the event loop and the interpreter's lock busy. Decoding, inference and answers then have to wait,
and fewer and fewer answers are in time. Delaying a refusal delays the client's next attempt. The rate applies to all
refusals, including those of bad requests and of connections above the limit, since such clients may retry as fast.
"""

from __future__ import annotations

from collections import deque

LEAST_PER_S = 250.0  # refusals per second that are always allowed
SHARE = 1.0  # refusals allowed per answer; at twice the capacity there are as many refusals as answers
BURST_S = 0.25  # seconds by which refusals may be ahead of the allowed rate
LONGEST_S = 4.0  # the longest delay of a refusal: a thousand connections then retry 250 times per second
WINDOW = 256  # number of most recent answers from which the rate of answers is computed
CHEAP = 0.6  # weight of a refusal that is sent before h11 reads the request, and so costs less (docs/decisions.md)
PRESSED_S = 1.0  # for this long after a refusal, connections look for requests that can be refused before h11


class Pace:
    """A limit on the rate of refusals. Times are seconds, by a clock of the caller's choice."""

    def __init__(self) -> None:
        self._answers: deque[float] = deque(maxlen=WINDOW)
        self._next = self._refused = float("-inf")

    def answered(self, now: float) -> None:
        """Record that a request was answered."""
        self._answers.append(now)

    def hold(self, now: float, cost: float = 1.0) -> float:
        """Record a refusal with the weight ``cost``, and return the seconds to wait before sending it."""
        self._refused = now
        self._next = max(self._next + cost / self.rate(now), now - BURST_S)
        held = min(LONGEST_S, max(0.0, self._next - now))
        self._next = min(self._next, now + LONGEST_S)
        return held

    def pressed(self, now: float) -> bool:
        """Return whether a request was refused within the last ``PRESSED_S`` seconds; more refusals are then likely."""
        return now - self._refused < PRESSED_S

    def rate(self, now: float) -> float:
        """Return the allowed number of refusals per second."""
        if len(self._answers) < 2 or now <= self._answers[0]:
            return LEAST_PER_S
        return max(LEAST_PER_S, SHARE * len(self._answers) / (now - self._answers[0]))
