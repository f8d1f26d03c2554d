"""Rehearsal and the queue in simulated time; the scheduler with a model that sleeps, or waits at a gate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from polypath.deploy.latency import Latencies
from polypath.serve.admission import Queue, Ticket, is_feasible, largest
from polypath.serve.errors import RequestRejected
from polypath.serve.scheduler import Scheduler
from polypath.serve.times import Times
from serve.fake import PATHS, FakeModel, Gate, profile

ORDER = list(PATHS)
SIZES = (1, 2, 4, 8)
SECONDS = 6  # of simulated load


def image(value: int) -> np.ndarray:
    return np.full((3, 4, 4), value, dtype=np.uint8)


def flat(**seconds: float) -> Times:
    """Times that grow by a half with each doubling of the batch."""
    rows = {n: {path: profile(s * 1.5**i) for path, s in seconds.items()} for i, n in enumerate(SIZES)}
    return Times({n: Latencies(row, now=0.0) for n, row in rows.items()})


# --- rehearsal -----------------------------------------------------------------------------------------


def test_rehearsal_counts_batches():
    times = flat(a=0.010)
    assert is_feasible([(0.034, "a", 1)] * 8, 0.0, times, 0.0)  # one batch of eight: 33.75 ms
    assert not is_feasible([(0.033, "a", 1)] * 8, 0.0, times, 0.0)  # 4, 2, 1, 1 take longer still
    assert not is_feasible([(0.034, "a", 1)] * 8, 0.001, times, 0.0)
    assert is_feasible([], 5.0, times, 0.0)


def test_rehearsal_goes_by_deadline_across_paths():
    times = flat(a=0.010, b=0.002)
    assert is_feasible([(0.003, "b", 1), (0.012, "a", 1)], 0.0, times, 0.0)
    assert not is_feasible([(0.003, "b", 1), (0.011, "a", 1)], 0.0, times, 0.0)


def test_rehearsal_keeps_room_for_others():
    times = flat(a=0.010)
    assert is_feasible([(0.034, "a", 8)], 0.0, times, 0.0)
    assert not is_feasible([(0.033, "a", 8)], 0.0, times, 0.0)
    assert is_feasible([(0.033, "a", 4)], 0.0, times, 0.0)


def test_a_batch_never_makes_its_first_one_late():
    times = flat(a=0.010)
    assert largest(8, 0.04, "a", times, 0.0) == 8
    assert largest(7, 0.04, "a", times, 0.0) == 4
    assert largest(8, 0.016, "a", times, 0.0) == 2
    assert largest(8, 0.001, "a", times, 0.0) == 1


# --- the queue, in simulated time ----------------------------------------------------------------------


@dataclass
class Outcome:
    """The outcomes of requests: how late accepted ones were answered, when and by which path; and the others."""

    lateness: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    refused: int = 0


def simulated(
    times: Times,
    requests: list[tuple[float, float, str, bool]],
    actual: Callable[[str, int, float], float],
    *,
    observe: bool = False,
) -> Outcome:
    """Run (moment, budget, path, cheaper) through a queue whose thread takes ``actual(path, size, now)`` a batch."""
    queue, free, outcome = Queue(list(times.paths), times, 1000), 0.0, Outcome()

    def work(until: float) -> None:
        nonlocal free
        while free <= until:
            queue.busy_until = 0.0
            batch, late = queue.take(max(free, moment_of(queue)))
            outcome.refused += len(late)
            if not batch:
                return
            begin = max(free, moment_of_batch(batch))
            free = begin + actual(batch[0].path, len(batch), begin)
            if observe:
                times.observe(batch[0].path, len(batch), free - begin, free)
            outcome.lateness.extend(free - ticket.deadline for ticket in batch)
            outcome.answered.extend(free for _ in batch)
            outcome.used.extend(ticket.path for ticket in batch)

    def moment_of(queue: Queue) -> float:
        return min((ticket.admitted for ticket in queue.tickets), default=0.0)

    def moment_of_batch(batch: list[Ticket]) -> float:
        return max(ticket.admitted for ticket in batch)

    for moment, budget, path, cheaper in requests:
        work(moment)
        ticket = queue.admit(moment, moment + budget, path, cheaper)
        if ticket is None:
            outcome.refused += 1
        else:
            ticket.image = image(0)
    work(float("inf"))
    return outcome


def poisson(rate: float, number: int, budget: float, path: str, cheaper: bool = False) -> list:
    moments = np.random.default_rng(0).exponential(1 / rate, number).cumsum()
    return [(float(moment), budget, path, cheaper) for moment in moments]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 4.0])
def test_accepted_requests_are_in_time_and_capacity_is_used(factor):
    times = flat(whole=0.010, cheap=0.002)
    capacity = 8 / times.high("whole", 8, 0.0)
    number = int(factor * capacity * SECONDS)
    found = simulated(times, poisson(factor * capacity, number, 0.2, "whole"), lambda p, n, _: times.high(p, n, 0.0))
    assert len(found.lateness) + found.refused == number
    assert max(found.lateness) <= 0
    assert len(found.lateness) >= 0.95 * min(number, capacity * SECONDS)
    assert found.refused == 0 or factor >= 1


def test_cheaper_answers_make_room_for_more():
    times = flat(whole=0.010, cheap=0.002)
    capacity = 8 / times.high("whole", 8, 0.0)
    refused = {}
    for cheaper in (False, True):
        asked = poisson(2 * capacity, 1500, 0.2, "whole", cheaper)
        found = simulated(times, asked, lambda p, n, _: times.high(p, n, 0.0))
        refused[cheaper] = found.refused
        assert max(found.lateness) <= 0
        assert set(found.used) == ({"whole", "cheap"} if cheaper else {"whole"})
    assert refused[False] >= 0.3 * 1500
    assert refused[True] <= 0.5 * refused[False]


def test_a_machine_slower_than_expected_drops_rather_than_answers_late():
    times = flat(whole=0.010)
    asked = poisson(800, 2000, 0.2, "whole")
    found = simulated(times, asked, lambda p, n, _: 1.5 * times.high(p, n, 0.0))
    assert found.refused > 500
    assert max(found.lateness) < 0.2  # begun when it still seemed possible


@pytest.mark.parametrize("factor", [0.9, 2.0])
def test_a_slow_spell_keeps_no_request_out_once_it_is_over(factor):
    """Three times as slow for five seconds. In the next half minute the queue answers as much as before it."""
    times, rng = flat(whole=0.010), np.random.default_rng(0)
    capacity = 8 / times.high("whole", 8, 0.0)

    def actual(path: str, size: int, now: float) -> float:
        spell = 3.0 if 20.0 <= now < 25.0 else 1.0
        return 0.010 * 1.5 ** SIZES.index(size) * spell * (1.0 + 0.02 * rng.exponential())

    asked = poisson(factor * capacity, int(factor * capacity * 60.0), 0.2, "whole")
    found = simulated(times, asked, actual, observe=True)
    answered = np.histogram(found.answered, bins=[5.0, 20.0, 25.0, 30.0, 55.0])[0] / [15.0, 5.0, 5.0, 25.0]
    before, during, just_after, after = answered / (min(factor, 1.0) * capacity)
    assert before > 0.95
    assert 0.2 < during < 0.4
    assert just_after > 0.8
    assert after > 0.95
    assert sum(late > 0 for late in found.lateness) < 0.01 * len(found.lateness)


def test_a_full_queue_takes_what_has_more_time():
    queue = Queue(ORDER, Times(FakeModel().latencies(SIZES)), 1000)
    taken = 0
    while queue.admit(0.0, 0.060, "whole") is not None:
        taken += 1
    assert 8 <= taken <= 40  # at most five batches of eight, 12 ms each
    ticket = queue.admit(0.0, 0.200, "whole", cheaper=True)
    assert ticket is not None
    assert ticket.path == "whole"


def test_cheaper_only_where_allowed():
    queue = Queue(ORDER, Times(FakeModel().latencies(SIZES)), 10)
    assert queue.admit(0.0, 0.010, "whole") is None  # it takes 6 ms, and a reply 5
    ticket = queue.admit(0.0, 0.010, "whole", cheaper=True)
    assert ticket is not None
    assert ticket.path == "middle"


# --- the scheduler -------------------------------------------------------------------------------------


def scheduled(model: FakeModel, work, **options):
    """Run ``await work(scheduler)`` and end the scheduler."""

    async def whole():
        scheduler = Scheduler(model.run, ORDER, Times(model.latencies(SIZES)), **options)
        try:
            return await asyncio.wait_for(work(scheduler), 20)
        finally:
            await asyncio.wait_for(scheduler.close(), 20)

    return asyncio.run(whole())


def ask(scheduler: Scheduler, value: int, budget_s: float, path: str = "whole", **options):
    ticket = scheduler.admit(time.perf_counter() + budget_s, path, **options)
    scheduler.submit(ticket, image(value))
    return ticket.future


def test_answers_are_those_of_their_own_images():
    gate = Gate()
    model = FakeModel(gate=gate)

    async def work(scheduler):
        futures = [ask(scheduler, i, 60.0, ORDER[i % 3]) for i in range(9)]
        gate.open()
        return await asyncio.gather(*futures)

    done = scheduled(model, work)
    assert [int(d.probabilities.argmax()) for d in done] == list(range(9))
    assert [d.path for d in done] == [ORDER[i % 3] for i in range(9)]
    assert sum(n for _, n in model.ran) == 9
    assert max(n for _, n in model.ran) > 1  # batches filled while the first one ran


def test_the_earliest_deadline_goes_first():
    gate = Gate()
    model = FakeModel(gate=gate)

    async def work(scheduler):
        first = ask(scheduler, 0, 60.0)
        await gate.waiting()
        late, soon = ask(scheduler, 1, 60.0), ask(scheduler, 2, 30.0, "cheap")
        gate.open()
        return await asyncio.gather(first, late, soon)

    scheduled(model, work)
    assert [path for path, _ in model.ran] == ["whole", "cheap", "whole"]


def test_what_cannot_be_in_time_is_refused_at_once():
    """No batch ends meanwhile, so a refusal waits for none."""
    gate = Gate()
    model = FakeModel(gate=gate)

    async def work(scheduler):
        futures = [ask(scheduler, 0, 60.0)]
        await gate.waiting()
        with pytest.raises(RequestRejected) as caught:
            futures.extend(ask(scheduler, 1, 0.060) for _ in range(200))
        assert caught.value.status == 503
        assert (caught.value.retry_s or 0.0) > 0
        assert int(dict(caught.value.headers(b""))[b"retry-after"]) >= 1
        assert not any(future.done() for future in futures)
        gate.open()
        return await asyncio.gather(*futures, return_exceptions=True)

    assert len(scheduled(model, work)) < 200


def test_late_tickets_leave_when_the_machine_is_slower_than_expected():
    gate, events = Gate(), []
    model = FakeModel(gate=gate)

    async def work(scheduler):
        first = ask(scheduler, 0, 60.0)
        await gate.waiting()
        await asyncio.sleep(0.02)  # the batch is overdue, so the thread seems to be free at any moment
        strict, lenient = ask(scheduler, 1, 0.3), ask(scheduler, 2, 60.0)
        await asyncio.sleep(0.31)
        gate.open()
        return await asyncio.gather(first, strict, lenient, return_exceptions=True)

    first, strict, lenient = scheduled(model, work, watch=lambda event, number, path: events.append(event))
    assert isinstance(strict, RequestRejected)
    assert (strict.status, strict.reason) == (503, "late")
    assert [int(d.probabilities.argmax()) for d in (first, lenient)] == [0, 2]
    assert events.count("late") == 1


def test_a_failing_network_fails_its_batch_and_no_other():
    model = FakeModel(fail=True)

    async def work(scheduler):
        with pytest.raises(RuntimeError, match="a defect"):
            await ask(scheduler, 1, 60.0)
        model.fail = False
        assert scheduler.healthy
        return await ask(scheduler, 4, 60.0)

    assert scheduled(model, work).probabilities.argmax() == 4


def test_closing_answers_the_accepted_and_admits_nobody():
    model = FakeModel()

    async def work(scheduler):
        undecoded = scheduler.admit(time.perf_counter() + 60, "whole")
        futures = [ask(scheduler, i, 60.0) for i in range(5)]
        closing = asyncio.create_task(scheduler.close())
        await asyncio.sleep(0)
        with pytest.raises(RequestRejected, match="shutting down"):
            scheduler.admit(time.perf_counter() + 60, "whole")
        scheduler.submit(undecoded, image(9))
        done = await asyncio.gather(*futures, undecoded.future)
        await closing
        return [int(d.probabilities.argmax()) for d in done]

    assert scheduled(model, work) == [0, 1, 2, 3, 4, 9]


def test_a_withdrawn_ticket_takes_no_time():
    model = FakeModel()

    async def work(scheduler):
        ticket = scheduler.admit(time.perf_counter() + 60, "whole")
        assert len(scheduler) == 1
        scheduler.withdraw(ticket)
        assert len(scheduler) == 0
        return scheduler.backlog()

    assert scheduled(model, work) == 0.0
    assert not model.ran


def test_the_queue_is_bounded():
    async def work(scheduler):
        tickets = [scheduler.admit(time.perf_counter() + 60, "cheap") for _ in range(3)]
        with pytest.raises(RequestRejected):
            scheduler.admit(time.perf_counter() + 60, "cheap")
        for ticket in tickets:
            scheduler.withdraw(ticket)

    scheduled(FakeModel(), work, queue=3)
