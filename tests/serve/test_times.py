"""The times that admission plans with: recent ones, else the profile corrected by recent times of other sizes."""

from __future__ import annotations

import numpy as np
import pytest

from polypath.deploy.latency import Latencies
from polypath.serve.times import Times
from serve.fake import profile

SIZES = (1, 2, 4, 8)


def flat(**seconds: float) -> Times:
    return times_of({n: {path: profile(s * 1.5**i) for path, s in seconds.items()} for i, n in enumerate(SIZES)})


def times_of(profiles: dict[int, dict[str, list[float]]]) -> Times:
    return Times({size: Latencies(row, now=0.0) for size, row in profiles.items()})


def test_times_follow_what_is_seen_and_come_back():
    times = flat(a=0.010, b=0.002)
    assert times.high("a", 1, 0.0) == 0.010
    for i in range(20):
        times.observe("a", 1, 0.030, now=0.01 * i)
    assert times.high("a", 1, 1.5) == pytest.approx(0.030)
    assert times.high("b", 1, 1.5) == pytest.approx(0.006)  # never seen: as much slower than its profile as the others
    assert times.idle("a", 1.5) == 0.010
    assert times.high("a", 1, 30.0) == 0.010  # or a path once slow would never run again


def test_a_profile_made_on_a_busy_machine_is_put_right():
    times = times_of({n: {"a": profile(0.050 * n, 0.400 * n)} for n in SIZES})
    assert times.high("a", 8, 0.0) == pytest.approx(3.2)
    for i in range(20):
        times.observe("a", 1, 0.005, now=0.01 * i)
    assert times.high("a", 8, 1.5) == pytest.approx(0.040)  # or it would never be tried
    assert times.idle("a", 1.5) == pytest.approx(0.005)


def test_one_stall_does_not_count():
    times = flat(a=0.010)
    for i in range(40):
        times.observe("a", 1, 1.0 if i == 20 else 0.011, now=0.01 * i)
    assert times.high("a", 1, 1.5) == pytest.approx(0.011)


def test_a_slow_spell_is_seen_within_seconds_and_forgotten_within_seconds():
    rng, times, now, seen = np.random.default_rng(0), flat(a=0.010), 0.0, []
    while now < 60.0:
        factor = 3.0 if 20.0 <= now < 30.0 else 1.0
        seconds = 0.010 * factor * (1.0 + 0.1 * rng.random())
        now += seconds
        times.observe("a", 1, seconds, now)
        seen.append((now, times.typical("a", 1, now), times.high("a", 1, now)))
    for at, typical, high in seen:
        if at < 20.0 or at > 32.0:
            assert 0.010 <= typical <= high <= 0.0115
        elif 22.0 < at < 30.0:
            assert 0.030 <= typical <= high <= 0.0335


def test_what_the_service_observes_the_predictor_knows():
    latencies = Latencies({"a": profile(0.010)}, now=0.0)
    times = Times({1: latencies})
    assert latencies.fits("a", 10.0, 0.0)
    for i in range(10):
        times.observe("a", 1, 0.030, now=0.1 * i)
    assert not latencies.fits("a", 10.0, 1.0)
    assert latencies.paths["a"].needs == pytest.approx(30.0)


def test_a_reply_is_what_was_seen_and_at_least_two_milliseconds():
    times = flat(a=0.010)
    assert times.reply(0.0) == 0.005
    for i in range(20):
        times.observe_reply(0.0001, now=0.01 * i)
    assert times.reply(1.0) == 0.002
    assert times.idle_reply(1.0) == 0.002
    for i in range(64):
        times.observe_reply(0.020, now=1.0 + 0.01 * i)
    assert times.reply(2.0) == 0.020
    assert times.idle_reply(2.0) == 0.005  # however slow it was


@pytest.mark.parametrize(
    ("profiles", "told"),
    [({2: {"a": [1.0]}}, "batch size 1"), ({1: {"a": [1.0]}, 2: {"b": [1.0]}}, "batch size 2")],
)
def test_sizes_that_do_not_go_together_are_refused(profiles, told):
    with pytest.raises(ValueError, match=told):
        times_of(profiles)


def test_a_lag_is_counted_on_and_soon_forgotten():
    times = Times({1: Latencies({"whole": profile(0.005, 0.006)}, 0.0)})
    assert times.lag(0.0) == 0.0
    for i in range(16):
        times.observe_lag(0.08, 0.025 * i)
    assert times.lag(0.4) == pytest.approx(0.08)
    for i in range(16, 32):
        times.observe_lag(0.0012, 0.025 * i)  # a timer's own
    assert times.lag(0.8) == 0.0
