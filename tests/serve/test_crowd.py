"""A simulation of requests to remote replicas: which are sent, and which are refused at once."""

from __future__ import annotations

import heapq
import random

import pytest

from polypath.serve.crowd import ROOM, Crowd, Sent


def simulated(
    clients: int, *, budget_s: float, each_s: float, way_s: float, seconds: float, seed: int = 0
) -> list[int]:
    """Answers in time per second, for ``clients`` that ask again a little after each answer or refusal.

    A replica behind a way of ``way_s`` takes ``each_s`` a request, one after the other, late ones as well.
    """
    draw, crowd, free = random.Random(seed), Crowd(), 0.0
    good = [0] * int(seconds)
    events: list[tuple[float, int, str, Sent | None]] = [(draw.random() * 0.05, i, "ask", None) for i in range(clients)]
    heapq.heapify(events)
    while events:
        now, client, kind, sent = heapq.heappop(events)
        if now >= seconds:
            break
        if kind == "ask":
            if crowd.expected(now) > budget_s:
                heapq.heappush(events, (now + 0.02 + 0.02 * draw.random(), client, "ask", None))
                continue
            free = max(free, now + way_s) + each_s * (0.5 + draw.random())
            ends, sent = min(free + way_s, now + budget_s), crowd.send(now)
            heapq.heappush(events, (ends, client, "answered" if free + way_s <= now + budget_s else "late", sent))
        else:
            assert sent is not None
            crowd.back(sent, now, answered=kind == "answered")
            good[int(now)] += kind == "answered"
            heapq.heappush(events, (now + 0.002, client, "ask", None))
    assert crowd.out >= 0
    return good


@pytest.mark.parametrize("clients", [1, 8, 64, 512])
def test_a_crowd_is_answered_as_fast_as_there_is_room_for(clients: int) -> None:
    """Without refusals, all 64 would wait longer than their budget, and none would be answered in time."""
    good = simulated(clients, budget_s=0.12, each_s=0.005, way_s=0.004, seconds=8.0)
    alone = 1 / (0.005 + 2 * 0.004 + 0.002)
    assert sum(good[3:]) / 5 >= 0.8 * min(200.0, clients * alone)


def test_it_lets_go_once_the_crowd_is_gone() -> None:
    crowd = Crowd()
    sent = [crowd.send(0.0) for _ in range(64)]
    for one in sent:
        crowd.back(one, 0.12, answered=False)
    assert crowd.expected(0.2) == 0.0  # one is always tried
    first = crowd.send(0.2)
    assert crowd.expected(0.2) == pytest.approx(0.24 * ROOM)  # the second is not, after none of 64 came back
    crowd.back(first, 0.215, answered=True)
    for at in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        crowd.back(crowd.send(at), at + 0.015, answered=True)
    crowd.send(21.0)
    assert crowd.expected(21.0) == 0.0  # what was seen has aged
