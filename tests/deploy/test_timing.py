from __future__ import annotations

import json

import pytest

from polypath.deploy import latency_profile
from polypath.deploy.timing import CALM, KEPT, LATE, LONGER, LONGEST, PATIENCE, STRIDE, TRUSTED, Clock, Pace, Timing


def still() -> float:
    """No time passes, so no path is tried again."""
    return 0.0


def test_percentiles_by_interpolation():
    t = Timing.of(range(101))
    assert (t.p50, t.p95, t.p99, t.samples) == (50, 95, 99, 101)
    assert Timing.of([2.0]).p99 == 2.0


def test_a_pause_does_not_move_the_estimate_and_a_slowdown_does():
    clock = Clock([1.0] * 1000, now=still)
    for i in range(2000):
        clock.observe(50.0 if i in (120, 121, 122) else 0.9)
        assert clock.needs <= 1.0
    assert clock.needs == 0.9
    slow = Clock([1.0] * 1000, now=still)
    for _ in range(5):
        slow.observe(3.0)
    assert slow.needs == 1.0
    slow.observe(3.0)
    assert slow.needs == 3.0  # more than one of two hundred
    for _ in range(1000):
        slow.observe(0.5)
    assert slow.needs == 0.5


def test_what_needs_the_tail_is_seen():
    """Three of a hundred are slow: the path needs the slow time."""
    clock = Clock([1.0] * 300, now=still)
    for i in range(500):
        clock.observe(4.0 if i % 33 == 5 else 1.0)
    assert clock.needs == 4.0


def test_the_estimate_is_a_percentile_of_what_is_left_in_the_window():
    import random

    draw = random.Random(0)
    times = [draw.expovariate(1.0) for _ in range(5000)]
    clock = Clock(times[:700], now=still)
    for i, ms in enumerate(times[700:], 701):
        clock.observe(ms)
        window = sorted(clock._newest)
        assert len(window) == min(i, KEPT)
        assert i < 700 + KEPT or window == sorted(times[i - KEPT : i])
        assert clock.needs == window[-1 - len(window) // LATE]
        assert sum(t > clock.needs for t in window) <= 0.005 * len(window)


def test_few_measured_times_count_for_many():
    clock = Clock([1.0] * 30, now=still)
    for _ in range(TRUSTED // LATE):
        clock.observe(9.0)
    assert clock.needs == 1.0
    clock.observe(9.0)
    assert clock.needs == 9.0
    assert clock.timing.samples == len(clock.samples()) == 30 + TRUSTED // LATE + 1  # what is told are true ones
    tail = Clock([1.0] * 97 + [5.0] * 3, now=still)
    assert tail.needs == 5.0


def test_a_path_that_was_given_up_is_tried_again_later_and_later():
    now, first = [0.0], 1e-3 * PATIENCE  # of runs of 1 ms
    clock = Clock([1.0] * 1000, now=lambda: now[0])

    def fails(after: int) -> None:
        for _ in range(after):
            assert clock.fits(1.0)
            clock.observe(9.0)
        assert not clock.fits(1.0)
        assert clock.needs == 9.0

    fails(6)
    for wait in (first, LONGER * first, LONGER**2 * first):
        now[0] += wait - 0.001
        assert not clock.fits(1.0)
        now[0] += 0.002
        fails(2)
    for _ in range(20):
        now[0] += LONGEST + 1
        fails(2)
    now[0] += LONGEST - 0.001
    assert not clock.fits(1.0)
    now[0] += 0.002
    for _ in range(CALM):
        assert clock.fits(1.0)
        clock.observe(0.9)
    for _ in range(3):  # more than one of two hundred
        clock.observe(9.0)
    assert not clock.fits(1.0)
    now[0] += first + 0.001
    assert clock.fits(1.0)  # patience is as at first


def test_a_path_is_tried_only_where_it_would_be_used():
    now = [0.0]
    clock = Clock([1.0] * 1000, now=lambda: now[0])
    for _ in range(300):
        clock.observe(3.0)
    now[0] += LONGEST
    assert not clock.fits(0.9)
    assert clock.needs == 3.0  # what was learnt is not forgotten for a budget that is too small anyway
    assert clock.fits(3.0)
    assert clock.needs == 3.0


def test_a_few_spikes_in_a_profile_do_not_ban_a_path():
    now, spikes = [0.0], [9.0] * 8  # of 500: more than one of two hundred
    clock = Clock([1.0] * 492 + spikes, now=lambda: now[0])
    assert not clock.fits(2.0)
    now[0] += LONGEST
    assert clock.fits(2.0)
    many = Clock([1.0] * 480 + [9.0] * 20, now=lambda: now[0])
    now[0] += LONGEST
    assert not many.fits(2.0)


def test_a_path_that_was_measured_on_a_busy_machine_is_tried_once_the_others_are_faster():
    now, pace = [0.0], Pace()
    used, idle = (Clock([ms] * 500, pace, now=lambda: now[0]) for ms in (2.0, 6.0))
    now[0] += LONGEST
    assert not idle.fits(4.0)
    for _ in range(STRIDE):
        used.observe(1.2, full=False)  # of fewer images than were measured
    assert pace.value == 1.0
    for _ in range(STRIDE):
        used.observe(1.2)
    assert pace.value == pytest.approx(0.6)
    assert idle.fits(4.0)
    assert idle.needs == pytest.approx(3.6)
    for _ in range(2):
        idle.observe(6.0)
    assert not idle.fits(4.0)
    for _ in range(STRIDE):
        used.observe(5.0)
    now[0] += LONGEST
    assert pace.value == 2.5
    assert not idle.fits(5.9)
    assert idle.fits(6.0)  # that the others have become slower does not count against it


def test_memory_stays_bounded_and_what_is_stored_tells_the_same():
    clock = Clock([1.0], now=still)
    for i in range(10 * KEPT):
        clock.observe(float(i % 100))
    assert len(clock._ordered) == len(clock.samples()) == KEPT
    again = Clock(clock.samples(), now=still)
    assert again.needs == clock.needs == 99.0
    assert clock.timing.p50 == again.timing.p50 == 49.5


def test_batches_share_the_times_of_the_next_power_of_two():
    assert [latency_profile.bucket(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_each_path_is_measured_often_enough():
    calls = {"a": 0, "b": 0}

    def task(name):
        calls[name] += 1

    times = latency_profile.measure({name: (lambda n=name: task(n)) for name in calls})
    assert all(latency_profile.LEAST <= len(ms) <= latency_profile.MOST for ms in times.values())
    assert all(calls[name] == len(times[name]) + latency_profile.WARMUP for name in calls)


def test_what_is_stored_is_read_again_and_damage_is_ignored():
    store = latency_profile.Store({"bundle": "x"})
    assert store.load(["a"]) == {}
    store.save({1: {"a": [1.0, 2.0]}})
    assert latency_profile.Store({"bundle": "x"}).load(["a"]) == {1: {"a": [1.0, 2.0]}}
    assert latency_profile.Store({"bundle": "y"}).load(["a"]) == {}
    assert store.load(["a", "b"]) == {}  # a path that was never timed
    for bad in ("", "{", "[]", json.dumps({"facts": store.facts, "times": {"1": {"a": ["x"]}}}), "\0"):
        store.file.write_text(bad)
        assert store.load(["a"]) == {}
    store.save({1: {"a": [3.0]}})
    assert store.load(["a"]) == {1: {"a": [3.0]}}


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "file"))
    latency_profile.Store({"bundle": "x"}).save({1: {"a": [1.0]}})
