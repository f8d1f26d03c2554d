"""Clients that retry at once after a refusal, in simulated time: answers during such a storm, and after it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from polypath.deploy.latency import Latencies
from polypath.serve.admission import Queue, Ticket
from polypath.serve.pace import BURST_S, CHEAP, LEAST_PER_S, LONGEST_S, PRESSED_S, Pace
from polypath.serve.times import Times
from serve.fake import profile

SIZES = (1, 2, 4, 8, 16)
BUDGET_S = 0.2
REPLY_S, DECODE_S = 0.0005, 0.001  # of the event loop, and of a decoder
TURN_S = 0.0005  # from an answer to its client's next request
Retry = Callable[[float], float]
"""Seconds after which a refused client retries, by the seconds that it was told to wait."""
RETRIES: dict[str, Retry] = {
    "at once": lambda told_s: 0.0,
    "by the body": lambda told_s: told_s,  # retry_after_ms
    "by the header": lambda told_s: max(1.0, math.ceil(told_s)),  # Retry-After
}


@dataclass(frozen=True)
class Costs:
    """Seconds of the event loop: to decide about a request, and then to accept or to refuse it; and how much such a
    refusal counts for the pace."""

    ask: float
    take: float
    refuse: float
    counts: float = 1.0


ORDINARY = Costs(ask=0.0003, take=0.0, refuse=0.0003)
"""Every request goes through h11, the guard and FastAPI's requests."""
PLAIN = Costs(ask=0.00015, take=0.0003, refuse=0.00005, counts=CHEAP)
"""Refused by its connection; other requests cost what they did, and the check."""
WAYS = (ORDINARY, PLAIN)
BATCH_S = {size: 0.003 + 0.002 * size for size in SIZES}
CAPACITY = 16 / BATCH_S[16]


def times() -> Times:
    return Times({size: Latencies({"whole": profile(s, 1.2 * s)}, now=0.0) for size, s in BATCH_S.items()})


class Service:
    """One event loop, one decoder, one inference thread. The loop takes the interpreter from the other two: all they do
    takes up to ``contention`` times longer, by the square of its load in the last tenth of a second."""

    def __init__(self, pace: Pace | None, contention: float = 3.0, costs: Costs = PLAIN) -> None:
        self.times, self.costs = times(), costs
        self.queue, self.pace, self.contention = Queue(["whole"], self.times, 256), pace, contention
        self.now, self.loop_free, self.decoder_free, self.running = 0.0, 0.0, 0.0, False
        self.busy: deque[tuple[float, float]] = deque()
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.good: list[float] = []
        self.refused: list[tuple[float, float]] = []  # after how long, and when to come again

    def at(self, moment: float, action: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.events, (moment, next(self.order), action, args))

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, action, args = heapq.heappop(self.events)
            action(*args)
        self.now = until

    def on_loop(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        begin = max(self.now, self.loop_free)
        self.loop_free = begin + seconds
        self.busy.append((begin, self.loop_free))
        self.at(self.loop_free, action, *args)

    def slowed(self, seconds: float) -> float:
        while self.busy and self.busy[0][1] < self.now - 0.1:
            self.busy.popleft()
        share = sum(min(end, self.now) - max(begin, self.now - 0.1) for begin, end in self.busy if begin < self.now)
        return seconds * (1 + (self.contention - 1) * min(1.0, share / 0.1) ** 2)

    def ask(self, retry: Retry | None) -> None:
        self.on_loop(self.costs.ask, self.admit, self.now, retry)

    def admit(self, asked: float, retry: Retry | None) -> None:
        decoded = max(self.now, self.decoder_free) + self.slowed(DECODE_S)
        deadline = self.now + BUDGET_S - (decoded - self.now)
        ticket = self.queue.admit(self.now, deadline, "whole")
        if ticket is None:
            self.refuse(asked, retry)
            return
        self.on_loop(self.costs.take, lambda: None)
        ticket.future = (asked, retry)
        self.decoder_free = decoded
        self.at(decoded, self.submit, ticket)

    def refuse(self, asked: float, retry: Retry | None) -> None:
        told_s = self.queue.retry_s(self.now, "whole")
        hold = self.pace.hold(self.now, self.costs.counts) if self.pace is not None else 0.0
        self.at(self.now + hold, self.on_loop, self.costs.refuse, self.told, asked, retry, told_s)

    def told(self, asked: float, retry: Retry | None, told_s: float) -> None:
        self.refused.append((self.now - asked, told_s))
        self.end(retry, told_s)

    def submit(self, ticket: Ticket) -> None:
        ticket.image = np.zeros(1)
        self.work()

    def work(self) -> None:
        if self.running:
            return
        self.queue.busy_until = 0.0
        batch, late = self.queue.take(self.now)
        for ticket in late:
            self.refuse(*ticket.future)
        if batch:
            self.running = True
            seconds = self.slowed(BATCH_S[next(size for size in SIZES if size >= len(batch))])
            self.at(self.now + seconds, self.done, batch, seconds)

    def done(self, batch: list[Ticket], seconds: float) -> None:
        self.running = False
        self.times.observe("whole", len(batch), seconds, self.now)
        for ticket in batch:
            self.on_loop(REPLY_S, self.reply, self.now, *ticket.future)
        self.work()

    def reply(self, finished: float, asked: float, retry: Retry | None) -> None:
        self.times.observe_reply(self.now - finished, self.now)
        if self.pace is not None:
            self.pace.answered(self.now)
        if self.now - asked <= BUDGET_S:
            self.good.append(self.now)
        self.end(retry)

    def end(self, retry: Retry | None, told_s: float | None = None) -> None:
        if retry is not None:
            self.at(self.now + TURN_S + (0.0 if told_s is None else retry(told_s)), self.ask, retry)

    def goodput(self, since: float, until: float) -> float:
        return sum(since <= at < until for at in self.good) / (until - since)


def offered(load: float, seconds: float, costs: Costs = PLAIN) -> Service:
    """Requests at ``load`` times the capacity, without retries."""
    service, rate = Service(Pace(), costs=costs), load * CAPACITY
    for moment in np.random.default_rng(0).exponential(1 / rate, int(1.5 * seconds * rate)).cumsum():
        service.at(float(moment), service.ask, None)
    service.run(seconds)
    return service


@cache
def at_capacity(costs: Costs = PLAIN) -> float:
    return offered(1.0, 4.0, costs).goodput(1.0, 4.0)


def storm(
    pace: Pace | None, clients: int, seconds: float, retry: Retry = RETRIES["at once"], costs: Costs = PLAIN
) -> Service:
    service = Service(pace, costs=costs)
    for i in range(clients):
        service.at(0.001 * (i % 10), service.ask, retry)
    service.run(seconds)
    return service


@pytest.mark.parametrize(
    ("clients", "retry", "costs"),
    [
        *((n, "at once", ORDINARY) for n in (64, 256, 512, 1024)),
        (512, "by the body", ORDINARY),
        (512, "by the header", ORDINARY),
        (1024, "by the header", ORDINARY),
        (256, "at once", PLAIN),
        (1024, "at once", PLAIN),
        (1024, "by the header", PLAIN),
    ],
)
def test_a_retry_storm_leaves_four_fifths_of_the_goodput_at_capacity(clients, retry, costs):
    wanted = at_capacity(costs)
    assert wanted > 0.6 * CAPACITY
    found = storm(Pace(), clients, 4.0, RETRIES[retry], costs)
    assert found.goodput(1.0, 4.0) >= 0.8 * wanted
    assert all(retry_s > 0 for _, retry_s in found.refused)


def test_without_the_pace_a_storm_leaves_little():
    assert storm(None, 256, 2.0, costs=ORDINARY).goodput(1.0, 2.0) < 0.4 * at_capacity(ORDINARY)


def test_cheap_refusals_leave_more():
    """Under the pace too; at twice the capacity nothing is held back."""
    dear, cheap = (storm(Pace(), 256, 2.0, costs=costs).goodput(1.0, 2.0) for costs in WAYS)
    assert cheap > dear  # little, since the pace gives few of them
    dear, cheap = (offered(2.0, 2.0, costs) for costs in WAYS)
    assert cheap.goodput(1.0, 2.0) > 1.05 * dear.goodput(1.0, 2.0)
    assert cheap.goodput(1.0, 2.0) >= 0.9 * at_capacity()
    assert np.quantile([took for took, _ in cheap.refused], 0.99) < 0.05


def test_an_idle_service_answers_the_next_request_after_a_storm():
    """Its times are those of the storm, in which no request would be in time."""
    service = Service(Pace())
    for _ in range(64):
        service.times.observe_reply(0.3, 0.0)
        service.times.observe("whole", 1, 0.3, 0.0)
    for i in range(5):  # one after the other: each finds an idle service
        service.at(0.1 + 0.3 * i, service.ask, None)
    service.run(3.0)
    assert len(service.good) == 5
    assert not service.refused


def test_an_idle_service_uses_the_profile_and_a_busy_one_recent_times():
    queue = Queue(["whole"], times(), 10)
    for _ in range(64):
        queue.times.observe("whole", 1, 0.5, 0.0)
        queue.times.observe_reply(0.5, 0.0)
    assert queue.admit(0.1, 0.1 + 0.010, "whole") is None  # one image takes 6 ms by the profile, and a reply 5
    first = queue.admit(0.1, 0.1 + 0.012, "whole")
    assert first is not None
    assert queue.admit(0.1, 0.1 + 0.1, "whole") is None  # there is one
    first.away = True  # a large image, which is decoded elsewhere, is nothing to wait for
    assert queue.admit(0.1, 0.1 + 0.1, "whole") is not None


def test_refusals_are_at_once_unless_there_are_far_more_than_answers():
    pace = Pace()
    burst = int(BURST_S * LEAST_PER_S) + 1
    assert [pace.hold(0.0) for _ in range(burst)] == [0.0] * burst
    held = [pace.hold(0.0) for _ in range(int(2 * LONGEST_S * LEAST_PER_S))]
    assert held == sorted(held)
    assert held[0] > 0
    assert held[-1] == LONGEST_S
    assert pace.hold(10.0) == 0.0  # forgotten


def test_cheap_refusals_count_less():
    pace, cheap = Pace(), Pace()
    held = [pace.hold(0.0) for _ in range(400)]
    assert [cheap.hold(0.0, CHEAP) for _ in range(400)] < held
    assert cheap.hold(0.0, CHEAP) == pytest.approx(max(0.0, 400 * CHEAP / LEAST_PER_S - BURST_S))


def test_there_may_be_more_refusals_for_a_while_after_one():
    pace = Pace()
    assert not pace.pressed(0.0)
    pace.hold(1.0)
    assert pace.pressed(1.0 + 0.9 * PRESSED_S)
    assert not pace.pressed(1.0 + 1.1 * PRESSED_S)


@pytest.mark.parametrize(("refusals", "held"), [(1.0, False), (4.0, True)])
def test_the_pace_follows_the_answers(refusals, held):
    """At twice the capacity a service refuses as much as it answers, and nothing is held back."""
    pace, rate, longest = Pace(), 2000.0, 0.0
    for i in range(8000):
        pace.answered(i / rate)
        for _ in range(int(refusals)):
            longest = max(longest, pace.hold(i / rate))
    assert (longest > 0.1) == held
