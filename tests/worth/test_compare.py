"""Figures of methods on made-up answers and times."""

from __future__ import annotations

import numpy as np
import pytest

from polypath.analysis.deadline import Interval
from polypath.worth.compare import Asked, Timed, compared

CHANCE = 90.0


def made_up(requests: int = 200) -> tuple[list[np.ndarray], Timed, Asked]:
    """Two methods on 10 test images: a fast one that is right on 5 of them, and one of two options that take 2 ms
    (right on the same 5) and 8 ms (on 8, but no more on the first); twice as long with a neighbour."""
    five, eight = np.arange(10) < 5, (np.arange(10) > 0) & (np.arange(10) < 9)
    right = [five[:, None], np.stack([five, eight], 1)]
    budgets = np.where(np.arange(requests) % 2, 1.0, 5.0)
    neighbour = np.arange(requests) >= requests // 2
    ms = np.array([1.0, 2.0, 8.0])
    times = np.where(neighbour[:, None], 2 * ms, ms)
    timed = Timed(2.0, np.tile(ms, (200, 1)), times)
    return right, timed, Asked(budgets, neighbour, np.arange(requests) % 10)


def test_each_way_answers_as_it_should() -> None:
    right, timed, requests = made_up()
    first, second = compared([["only"], ["small", "large"]], right, timed, requests, CHANCE)
    assert first.fixed == "only"
    assert first.options[0].error == 50.0
    assert [(o.name, o.error, o.p50_ms, o.busy_p50_ms) for o in second.options] == [
        ("small", 50.0, 2.0, 4.0),
        ("large", 20.0, 8.0, 16.0),
    ]
    hits = first.ways["rule"]
    assert hits.value == 0.5  # always in time, within 2 or 10 ms
    assert hits.low <= hits.value <= hits.high
    assert first.ways["fixed"] == first.ways["oracle"] == hits
    ways = {way: of.value for way, of in second.ways.items()}
    # of every second request 10 ms are left: calm by the large one (images 0, 2, …, 8), busy by the small one
    calm_loose, calm_tight, busy_loose = 4 / 5 / 4, 2 / 5 / 4, 3 / 5 / 4
    assert ways["times"] == pytest.approx(calm_loose + calm_tight + busy_loose)
    assert ways["oracle"] == pytest.approx(1 / 4 + calm_tight + busy_loose)  # image 0 by the small one
    assert ways["rule"] <= ways["times"] <= ways["oracle"]
    assert ways["fixed"] <= ways["oracle"]


def test_flips_and_gains_are_beside_what_came_before() -> None:
    right, timed, requests = made_up()
    first, second = compared([["only"], ["small", "large"]], right, timed, requests, CHANCE)
    assert first.flips == []
    assert [(f.to_right, f.to_wrong) for f in second.flips] == [(4, 1)]
    assert first.gain is None
    assert first.hypervolume_gain is None
    assert isinstance(second.gain, Interval)
    assert second.gain.value == pytest.approx(second.ways["rule"].value - first.ways["rule"].value, abs=1e-4)
    assert second.gain.low <= second.gain.value <= second.gain.high
    assert second.hypervolume_gain is not None
    assert second.hypervolume_gain.value == pytest.approx(second.hypervolume.value - first.hypervolume.value, abs=1e-4)
    alone, same = compared([["only"], ["only"]], [right[0], right[0]], timed_of(timed, [0, 0]), requests, CHANCE)
    assert same.gain == Interval(0.0, 0.0, 0.0)
    assert alone.hypervolume == first.hypervolume  # whatever stands beside it: the box is the protocol's


def timed_of(timed: Timed, columns: list[int]) -> Timed:
    return Timed(timed.unit_ms, timed.profile[:, columns], timed.requests[:, columns])


def test_a_faster_or_a_better_option_covers_more() -> None:
    right, timed, requests = made_up()
    volume = {}
    for name, columns, hits in (("base", [1], right[0]), ("faster", [0], right[0]), ("better", [1], right[1][:, 1:])):
        (found,) = compared([["one"]], [hits], timed_of(timed, columns), requests, CHANCE)
        volume[name] = found.hypervolume.value
    assert volume["base"] < volume["faster"] < 1
    assert volume["base"] < volume["better"] < 1


def test_without_a_neighbour_there_are_no_times_beside_one() -> None:
    right, timed, requests = made_up()
    calm = Asked(requests.budgets, np.zeros(len(requests.budgets), bool), requests.images)
    (found,) = compared([["only"]], right[:1], timed_of(timed, [0]), calm, CHANCE)
    assert (found.options[0].busy_p50_ms, found.options[0].busy_p99_ms) == (None, None)
    assert found.refused == 0.0
    late = Asked(requests.budgets / 100, requests.neighbour, requests.images)
    (found,) = compared([["only"]], right[:1], timed_of(timed, [0]), late, CHANCE)
    assert found.refused == 1.0
    assert found.ways["oracle"] == Interval(0.0, 0.0, 0.0)
