"""Deadline accuracy and hypervolume against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polypath.analysis.deadline import (
    NONE,
    Measured,
    Trace,
    bursty_trace,
    by_needs,
    deadline_accuracy,
    fixed,
    hypervolume,
    hypervolume_draws,
    in_time,
    interval_of,
    oracle,
)


def measured(budgets, times, right) -> Measured:
    return Measured(np.asarray(budgets, float), np.asarray(times, float), np.asarray(right, bool))


FOUR = measured(
    [1.5, 3.0, 3.0, 0.5],
    [[1.0, 2.0], [1.0, 2.0], [1.0, 4.0], [1.0, 2.0]],
    [[1, 1], [0, 1], [1, 1], [1, 1]],
)


def test_late_and_refused_answers_are_wrong():
    assert FOUR.outcome(np.array([0, 0, 0, 0])).tolist() == [True, False, True, False]
    assert FOUR.outcome(np.array([1, 1, 1, 1])).tolist() == [False, True, False, False]
    assert FOUR.outcome(np.array([NONE, 1, 0, NONE])).tolist() == [False, True, True, False]


def test_policies():
    assert fixed(FOUR).tolist() == [0, 0, 0, 0]
    assert in_time(FOUR, [1, 0]).tolist() == [0, 1, 0, NONE]
    assert oracle(FOUR).tolist() == [0, 1, 0, NONE]
    wrong_in_time = measured([3.0], [[1.0, 2.0]], [[1, 0]])
    assert in_time(wrong_in_time, [1, 0]).tolist() == [1]
    assert oracle(wrong_in_time).tolist() == [0]


def test_the_rule_uses_only_times_seen_so_far():
    slow = measured([3.0] * 4, [[1.0, 9.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [[1, 1]] * 4)
    profile = np.tile([1.0, 2.0], (10, 1))
    assert by_needs(slow, [1, 0], profile, share=1.0).tolist() == [1, 0, 0, 0]  # not chosen again after one late run
    assert by_needs(slow, [1, 0], profile, share=0.9).tolist() == [1, 1, 1, 1]
    assert by_needs(slow, [1, 0], np.tile([5.0, 5.0], (3, 1))).tolist() == [NONE] * 4
    later = measured([3.0] * 4, [[1.0, 2.0]] * 3 + [[1.0, 9.0]], [[1, 1]] * 4)
    assert by_needs(later, [1, 0], profile, share=1.0).tolist() == [1, 1, 1, 1]  # without a look ahead


@pytest.mark.parametrize("seed", range(5))
def test_no_policy_beats_the_oracle(seed):
    draw = np.random.default_rng(seed)
    times = draw.uniform(0.5, 1.5, (200, 3)) * [1.0, 2.0, 4.0]
    m = measured(draw.uniform(0.3, 6.0, 200), times, draw.random((200, 3)) < [0.6, 0.7, 0.8])
    best = m.outcome(oracle(m)).sum()
    assert best == (m.right & m.in_time).any(1).sum()
    for chosen in (fixed(m), in_time(m, [2, 1, 0]), by_needs(m, [2, 1, 0], times[:50])):
        assert m.outcome(chosen).sum() <= best
    refused = in_time(m, [2, 1, 0]) == NONE
    assert (refused == ~m.in_time.any(1)).all()


def test_traces_are_the_seeds_and_bursty():
    trace = bursty_trace(4000, seed=3)
    again, other = bursty_trace(4000, seed=3), bursty_trace(4000, seed=4)
    assert (trace.budgets == again.budgets).all()
    assert (trace.neighbour == again.neighbour).all()
    assert not (trace.budgets == other.budgets).all()
    assert 0.15 <= trace.budgets.min() < 0.3
    assert 3.0 < trace.budgets.max() <= 4.0
    assert 0.1 < trace.neighbour.mean() < 0.4
    tight = trace.budgets < 0.8
    assert 0.3 < tight.mean() < 0.7
    changes = (tight[1:] != tight[:-1]).sum()
    assert 4000 / 40 / 2 < changes < 4000 / 40 * 2  # spells, not requests, are tight
    assert len(trace.first(10).budgets) == 10


def test_an_interval_by_blocks_is_wider_where_requests_are_alike():
    alike, apart = np.repeat([True, False], 500), np.tile([True, False], 500)
    found = [deadline_accuracy(outcome) for outcome in (alike, apart)]
    assert [f.value for f in found] == [0.5, 0.5]
    assert found[0].low < 0.4 < 0.49 < found[1].low <= 0.5 <= found[1].high < 0.51
    assert deadline_accuracy(np.ones(3, bool)).low == 1.0


def test_hypervolume_is_the_area_that_is_dominated():
    box = (1.0, 4.0, 50.0)
    ms, errors = np.array([1.0, 2.0]), np.array([30.0, 20.0])
    area = math.log(4) * 20 + math.log(2) * 10
    assert hypervolume(ms, errors, box) == pytest.approx(area / (math.log(4) * 50))
    assert hypervolume(ms[::-1], errors[::-1], box) == hypervolume(ms, errors, box)
    worse = hypervolume(np.array([1.0, 2.0, 3.0]), np.array([30.0, 20.0, 25.0]), box)
    assert worse == hypervolume(ms, errors, box)  # a path that is slower and worse adds nothing
    assert hypervolume(np.array([4.0]), np.array([0.0]), box) == 0.0
    assert hypervolume(np.array([0.5]), np.array([0.0]), box) == 1.0
    assert hypervolume(np.array([1.0]), np.array([60.0]), box) == 0.0


def test_hypervolumes_of_two_networks_are_paired_by_the_images():
    draw = np.random.default_rng(0)
    right, times = draw.random((400, 2)) < [0.6, 0.8], np.tile([1.0, 2.0], (20, 1))
    better = right.copy()
    better[:40] = True
    box = (0.5, 4.0, 100.0)
    a, b = (hypervolume_draws(times, r, box, draws=300) for r in (right, better))
    found, gain = interval_of(a), interval_of(b - a)
    assert found.low < found.value < found.high
    assert found.value == hypervolume(np.array([1.0, 2.0]), 100 * (1 - right.mean(0)), box)
    assert 0 < gain.low < gain.high
    assert gain.high - gain.low < found.high - found.low


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bursty_trace(0, 0), "requests = 0"),
        (lambda: bursty_trace(5, 0, busy=1.0), "busy = 1.0"),
        (lambda: bursty_trace(5, 0, tight=(2.0, 1.0)), r"tight = \(2.0, 1.0\)"),
        (lambda: Trace(np.array([0.0]), np.array([True]), 0), "budgets: must be finite numbers above 0"),
        (lambda: Trace(np.ones(2), np.ones(1, bool), 0), r"must be \(requests,\)"),
        (lambda: measured([1.0], [[1.0, 2.0]], [[1]]), r"must be \(requests, paths\), \(requests, paths\)"),
        (lambda: hypervolume(np.ones(1), np.ones(1), (2.0, 1.0, 50.0)), r"box = \(2.0, 1.0, 50.0\)"),
        (lambda: deadline_accuracy(np.zeros(0, bool)), "at least one request"),
    ],
)
def test_illegal_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
