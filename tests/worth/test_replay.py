"""Tasks that answer the requests of a trace in turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from polypath.worth.replay import replay


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (1, "a0 b0 b1 a1 a2 b2"),
        (2, "a0 a1 b0 b1 b2 a2"),
        (5, "a0 a1 a2 b0 b1 b2"),
    ],
)
def test_every_task_answers_every_request_in_blocks(block: int, wanted: str):
    order: list[str] = []
    states: list[bool] = []

    def task(name: str) -> Callable[[int], None]:
        return lambda value: order.append(f"{name}{value}")

    busy = [False, True, False]
    times = replay([task("a"), task("b")], [0, 1, 2], busy, states.append, block)
    assert " ".join(order) == wanted
    assert states == [busy[int(name[1])] for name in order]
    assert times.shape == (3, 2)
    assert (times > 0).all()
