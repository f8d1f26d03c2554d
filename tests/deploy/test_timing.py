from __future__ import annotations

import json

from polypath.deploy import profile
from polypath.deploy.timing import ENOUGH, FRESH, KEPT, Clock, Timing


def test_percentiles_by_interpolation():
    t = Timing.of(range(101))
    assert (t.p50, t.p95, t.p99, t.samples) == (50, 95, 99, 101)
    assert Timing.of([2.0]).p99 == 2.0


def test_observations_take_over_and_are_forgotten():
    now = [0.0]
    clock = Clock([1.0] * 50, now=lambda: now[0])
    assert clock.timing.p99 == 1.0
    for _ in range(ENOUGH):
        clock.observe(9.0)
    assert clock.timing.p50 == 9.0
    now[0] = FRESH + 1.0
    assert clock.timing.p50 == 1.0  # a busy minute is not held against a path for ever


def test_few_observations_are_pooled_with_the_profile():
    clock = Clock([1.0] * 50)
    for _ in range(20):
        clock.observe(9.0)
    assert clock.timing.p50 == 1.0
    assert clock.timing.p99 == 9.0


def test_memory_stays_bounded_and_what_is_stored_tells_the_same():
    clock = Clock([1.0])
    for i in range(10 * KEPT):
        clock.observe(float(i % 100))
    assert len(clock.seen) == KEPT
    stored = Timing.of(clock.samples())
    assert len(clock.samples()) == ENOUGH
    assert abs(stored.p50 - clock.timing.p50) < 2
    assert abs(stored.p99 - clock.timing.p99) < 2


def test_batches_share_the_times_of_the_next_power_of_two():
    assert [profile.bucket(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_each_path_is_measured_often_enough():
    calls = {"a": 0, "b": 0}

    def task(name):
        calls[name] += 1

    times = profile.measure({name: (lambda n=name: task(n)) for name in calls})
    assert all(profile.LEAST <= len(ms) <= profile.MOST for ms in times.values())
    assert all(calls[name] == len(times[name]) + profile.WARMUP for name in calls)


def test_what_is_stored_is_read_again_and_damage_is_ignored():
    store = profile.Store({"bundle": "x"})
    assert store.load(["a"]) == {}
    store.save({1: {"a": [1.0, 2.0]}})
    assert profile.Store({"bundle": "x"}).load(["a"]) == {1: {"a": [1.0, 2.0]}}
    assert profile.Store({"bundle": "y"}).load(["a"]) == {}
    assert store.load(["a", "b"]) == {}  # a path that was never timed
    for bad in ("", "{", "[]", json.dumps({"facts": store.facts, "times": {"1": {"a": ["x"]}}}), "\0"):
        store.file.write_text(bad)
        assert store.load(["a"]) == {}
    store.save({1: {"a": [3.0]}})
    assert store.load(["a"]) == {1: {"a": [3.0]}}


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "file"))
    profile.Store({"bundle": "x"}).save({1: {"a": [1.0]}})
