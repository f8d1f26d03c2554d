"""Estimates of paths' times, in simulations: a path is a function that draws its time at a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from polypath.deploy import latency_profile
from polypath.deploy.latency import Latencies, PathLatency, Recent, Timing, disturbed, undisturbed

Draw = Callable[[np.random.Generator, float], float]
"""Milliseconds of a run that begins at a moment, in seconds."""


def steady(ms: float, *, load: Callable[[float], float] = lambda now: 1.0) -> Draw:
    """Times a little above ``ms``, on a machine that is slower by ``load``."""
    return lambda rng, now: ms * load(now) * (1.0 + 0.02 * rng.exponential())


def spiky(ms: float, share: float, spike: float) -> Draw:
    """Like :func:`steady`, but ``share`` of the runs take ``spike``, though none of those that are profiled."""
    calm = steady(ms)
    return lambda rng, now: spike if now > 0.0 and rng.random() < share else calm(rng, now)


def spell(begin: float, end: float, factor: float) -> Callable[[float], float]:
    """The load of a machine that is slower by ``factor`` for some seconds."""
    return lambda now: factor if begin <= now < end else 1.0


@dataclass
class Log:
    """The outcomes of requests, by moment."""

    budget: float
    rows: list[tuple[float, str, float]] = field(default_factory=list)
    refused: int = 0

    def late(self, since: float = 0.0, until: float = np.inf) -> int:
        return sum(ms > self.budget for now, _, ms in self.rows if since <= now < until)

    def share(self, path: str, since: float = 0.0, until: float = np.inf) -> float:
        """Of the answers, those by ``path``."""
        names = [name for now, name, _ in self.rows if since <= now < until]
        return names.count(path) / len(names)


def simulated(
    paths: dict[str, Draw],
    budget: float,
    seconds: float,
    *,
    profile: int = 80,
    profiled_load: float = 1.0,
    every: float = 0.02,
    seed: int = 0,
) -> Log:
    """Requests ``every`` so many seconds, each by the first of ``paths``, most accurate first, that fits ``budget``."""
    rng, now, log = np.random.default_rng(seed), 0.0, Log(budget)
    measured = {name: [profiled_load * draw(rng, 0.0) for _ in range(profile)] for name, draw in paths.items()}
    latencies = Latencies(measured, now)
    while now < seconds:
        path = next((name for name in paths if latencies.fits(name, budget, now)), None)
        if path is None:
            log.refused += 1
        else:
            ms = paths[path](rng, now)
            now += 1e-3 * ms
            latencies.observe(path, ms, now)
            log.rows.append((now, path, ms))
        now += every
    return log


# --- which path is used, and how many answers are late --------------------------------------------------------


@pytest.mark.parametrize("profile", [30, 80, 1000])
def test_a_steady_path_that_fits_is_always_used(profile):
    log = simulated({"whole": steady(10.0), "cheap": steady(2.0)}, 15.0, 120.0, profile=profile)
    assert log.share("whole") == 1.0
    assert log.late() == 0


def test_a_path_that_does_not_fit_is_never_used():
    log = simulated({"whole": steady(10.0), "cheap": steady(2.0)}, 9.0, 120.0)
    assert log.share("cheap") == 1.0
    assert simulated({"whole": steady(10.0)}, 9.0, 10.0).rows == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.012, 0.03, 0.1])
def test_a_path_with_many_spikes_is_given_up_before_they_make_one_answer_of_a_hundred_late(share, seed):
    log = simulated({"whole": spiky(10.0, share, 40.0), "cheap": steady(2.0)}, 15.0, 300.0, seed=seed)
    assert log.late() <= 0.01 * len(log.rows)
    assert log.share("whole", since=150.0) < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_path_with_few_spikes_stays(seed):
    log = simulated({"whole": spiky(10.0, 0.001, 40.0), "cheap": steady(2.0)}, 15.0, 300.0, seed=seed)
    assert log.share("whole") > 0.95


@pytest.mark.parametrize("begin", [1.0, 60.0])
def test_a_pause_is_forgiven(begin):
    """Two answers in a row take ten times as long, soon after a profile of few times or after many."""
    pauses, calm = iter([100.0, 100.0]), steady(10.0)

    def paused(rng: np.random.Generator, now: float) -> float:
        return (now > begin and next(pauses, None)) or calm(rng, now)

    log = simulated({"whole": paused, "cheap": steady(2.0)}, 15.0, 120.0)
    assert log.late() == 2
    assert log.share("whole") == 1.0


@pytest.mark.parametrize("length", [0.5, 5.0, 30.0])
def test_a_slow_spell_costs_few_late_answers_and_is_over_soon_after(length):
    load = spell(20.0, 20.0 + length, 3.0)
    log = simulated({"whole": steady(10.0, load=load), "cheap": steady(2.0, load=load)}, 15.0, 300.0)
    assert log.share("whole", until=20.0) == 1.0
    assert log.late() <= 25
    assert log.share("cheap", 20.0, 20.0 + length) > 0.3
    back = 20.0 + 4.0 * length + 1.0  # retries are three times as far apart each time
    assert log.share("whole", since=back) == 1.0
    assert log.late(since=20.1 + length) == 0  # one may have begun in the spell


def test_retries_of_a_path_that_stays_slow_become_rare():
    load = spell(20.0, np.inf, 3.0)
    log = simulated({"whole": steady(10.0, load=load), "cheap": steady(2.0)}, 15.0, 900.0, every=0.1)
    retries = np.array([now for now, path, _ in log.rows if path == "whole" and now > 20.0])
    assert len(retries) <= 50
    assert 1 <= ((retries >= 600.0) & (retries < 900.0)).sum() <= 12  # it is not forgotten either
    assert log.late() <= 50  # in a quarter of an hour


def test_a_path_that_becomes_fast_again_is_used_again_within_a_minute_or_so():
    load = spell(20.0, 400.0, 3.0)
    log = simulated({"whole": steady(10.0, load=load), "cheap": steady(2.0)}, 15.0, 600.0)
    assert log.share("whole", 100.0, 400.0) < 0.01
    assert log.share("whole", since=470.0) == 1.0


def test_patience_comes_back_after_a_long_calm():
    """A second slow spell is over as soon as the first one: the back-off of the first is forgotten in between."""

    def load(now: float) -> float:
        return 3.0 if 20.0 <= now < 50.0 or 300.0 <= now < 305.0 else 1.0

    log = simulated({"whole": steady(10.0, load=load), "cheap": steady(2.0)}, 15.0, 400.0)
    assert log.share("whole", 150.0, 300.0) == 1.0
    assert log.share("whole", since=330.0) == 1.0


def test_a_profile_of_a_busy_machine_excludes_no_path():
    """The profile says twice as much as each path takes afterwards: what the paths in use show is believed of all."""
    paths = {"whole": steady(10.0), "half": steady(6.0), "cheap": steady(2.0)}
    log = simulated(paths, 15.0, 60.0, profiled_load=2.0)
    assert log.rows[0][1] == "half"
    assert log.share("whole", since=20.0) == 1.0
    assert log.late() == 0
    assert simulated(paths, 9.0, 60.0, profiled_load=2.0).share("half", since=20.0) == 1.0


def test_a_slower_machine_excludes_no_path_that_was_not_tried():
    """Only the cheap path is slower than its profile: the whole is still retried, once it fits."""
    load = spell(20.0, 60.0, 3.0)
    paths = {"whole": steady(10.0, load=load), "cheap": steady(2.0, load=lambda now: 2.0)}
    assert simulated(paths, 15.0, 300.0).share("whole", since=200.0) == 1.0


def test_spikes_in_a_profile_exclude_no_path():
    spikes = iter([40.0] * 2)
    path = steady(10.0)

    def draw(rng: np.random.Generator, now: float) -> float:
        return next(spikes, None) or path(rng, now)

    log = simulated({"whole": draw, "cheap": steady(2.0)}, 15.0, 120.0, profile=100)
    assert log.share("whole", since=60.0) == 1.0
    assert log.late() == 0


@pytest.mark.parametrize("seed", range(3))
def test_drift_is_followed(seed):
    """The machine becomes slower and slower: the whole is left when it no longer fits, the middle one later."""
    paths = {
        name: steady(ms, load=lambda now: 1.0 + now / 200.0)
        for name, ms in (("whole", 10.0), ("middle", 6.0), ("cheap", 2.0))
    }
    log = simulated(paths, 15.0, 400.0, seed=seed)
    assert log.share("whole", until=80.0) == 1.0  # up to 14 ms at the median
    assert log.share("middle", 110.0, 260.0) > 0.99  # 9 to 14 ms
    assert log.share("cheap", since=320.0) > 0.99
    assert log.late() <= 0.01 * len(log.rows)


# --- busy machines -------------------------------------------------------------------------------------------


def sliced(ms: float, share: float, pause: float) -> Draw:
    """A path beside other programs: in a share of the runs these have the processor for up to ``pause`` ms."""
    calm = steady(ms)
    return lambda rng, now: calm(rng, now) + (pause * rng.random() if rng.random() < share else 0.0)


def taken(draw: Draw, count: int, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [draw(rng, 0.0) for _ in range(count)]


@pytest.mark.parametrize("ms", [0.06, 0.2, 5.0])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_a_busy_machine_is_noticed(ms, share):
    assert disturbed(taken(sliced(ms, share, 60.0), 500))


@pytest.mark.parametrize("ms", [0.06, 0.2, 5.0, 40.0])
@pytest.mark.parametrize("count", [30, 100, 1000])
def test_a_calm_machine_is_not_suspected(ms, count):
    assert not disturbed(taken(steady(ms), count))
    assert not disturbed(taken(lambda rng, now: ms * rng.lognormal(0.0, 0.2), count))
    assert not disturbed(taken(sliced(ms, 0.05, 0.5), count))  # half a millisecond does not matter
    if count == 1000:
        assert not disturbed([*taken(steady(ms), 996), *[50.0 * ms] * 4])  # rarer than a budget allows


def test_what_is_left_of_disturbed_times_is_calm():
    for seed in range(20):
        times = taken(sliced(0.2, 0.5, 60.0), 200, seed)
        left = undisturbed(times)
        assert not disturbed(left)
        assert 0.4 * len(times) < len(left) < 0.6 * len(times)


def test_a_profile_of_a_busy_machine_refuses_no_budget_and_is_corrected():
    """Its disturbed times do not count: a path is used, and dropped at its second late answer."""
    measured = {"whole": taken(sliced(5.0, 0.2, 50.0), 200), "cheap": taken(sliced(0.2, 0.2, 50.0), 1000)}
    believed, doubted = Latencies(measured, 0.0), Latencies(measured, 0.0, "busy")
    for path, budget in (("cheap", 2.0), ("whole", 10.0)):
        assert not believed.fits(path, budget, 0.0)
        assert doubted.fits(path, budget, 0.0)
    doubted.observe("whole", 30.0, 1.0)
    assert doubted.fits("whole", 10.0, 1.0)
    doubted.observe("whole", 30.0, 1.0)
    assert not doubted.fits("whole", 10.0, 1.0)


def test_a_calm_profile_outlives_a_busy_session():
    profile = taken(steady(2.0), 300)
    for seed in range(10):  # short ones, long ones
        latencies = Latencies({"a": profile}, 0.0, "stored")
        for i, ms in enumerate(taken(sliced(2.0, 0.3, 50.0), 10 * 2**seed, seed)):
            latencies.observe("a", ms, float(i))
        stored = latencies.to_store(1e5)
        assert stored is not None
        assert PathLatency(stored["a"], 0.0).needs < 8.0
        profile = stored["a"]


def test_a_machine_that_has_become_slower_is_learnt():
    latencies = Latencies({"a": taken(steady(2.0), 300)}, 0.0, "stored")
    for i, ms in enumerate(taken(steady(9.0), 100)):
        latencies.observe("a", ms, float(i))
    stored = latencies.to_store(100.0)
    assert stored is not None
    assert PathLatency(stored["a"], 0.0).needs > 9.0


def test_what_a_busy_machine_measured_is_never_stored():
    latencies = Latencies({"a": taken(sliced(2.0, 0.3, 50.0), 300)}, 0.0, "busy")
    assert latencies.to_store(0.0) is None
    for i, ms in enumerate(taken(steady(2.0), 300)):
        latencies.observe("a", ms, float(i))
    assert latencies.to_store(300.0) is None  # other paths may never have run since


def scripted(monkeypatch, *profiles: list[float]) -> list[int]:
    """Profiles of one path, one after the other; returns a list that grows with each."""
    made: list[int] = []

    def measure(tasks, seconds=None):
        made.append(len(made))
        return dict.fromkeys(tasks, profiles[made[-1]])

    monkeypatch.setattr(latency_profile, "measure", measure)
    return made


def test_a_disturbed_profile_is_measured_again_at_once(monkeypatch):
    calm, busy, busier = [1.0] * 50, [1.0] * 45 + [9.0] * 5, [1.0] * 45 + [90.0] * 5
    for profiles, tries, found in (
        ([calm], 1, (calm, "measured")),
        ([busier, calm], 2, (calm, "measured")),
        ([busier, busy, busier], 3, (busy, "busy")),
    ):
        made = scripted(monkeypatch, *profiles)
        times, origin = latency_profile.quietest({"a": lambda: None}, tries=3)
        assert (times["a"], origin) == found
        assert len(made) == tries


# --- the estimate itself -------------------------------------------------------------------------------------


def test_needs_is_a_time_that_one_of_two_hundred_newest_exceeds():
    rng = np.random.default_rng(0)
    times = rng.lognormal(0.0, 0.5, 6000).tolist()
    latency = PathLatency(times[:300], 0.0)
    for i, ms in enumerate(times[300:], 301):
        latency.observe(ms, now=float(i))
        if i >= 1300:
            newest = np.array(times[i - 1000 : i])
            assert 0.002 <= (newest > latency.needs).mean() <= 0.005


def test_three_late_answers_after_a_short_profile_are_too_many():
    latency = PathLatency([1.0] * 30, 0.0)
    for _ in range(2):
        latency.observe(9.0, 0.0)
    assert latency.needs == 1.0
    latency.observe(9.0, 0.0)
    assert latency.needs == 9.0
    assert latency.timing.samples == len(latency.samples()) == 33  # what is reported and stored are true times


def test_a_budget_that_is_too_small_anyway_resets_no_estimate():
    latencies = Latencies({"a": [1.0] * 100}, 0.0)
    for _ in range(300):
        latencies.observe("a", 3.0, 0.0)
    assert not latencies.fits("a", 0.9, 1e6)
    assert latencies.paths["a"].needs == 3.0
    assert latencies.fits("a", 3.0, 1e6)
    assert latencies.paths["a"].needs == 3.0


def test_runs_of_fewer_images_than_were_profiled_say_nothing_of_the_machine():
    latencies = Latencies({"a": [2.0] * 100}, 0.0)
    for i in range(100):
        latencies.observe("a", 1.0, float(i), full=False)
    assert latencies.pace(100.0) == 1.0
    for i in range(100):
        latencies.observe("a", 1.0, 100.0 + i)
    assert latencies.pace(200.0) == 0.5
    assert latencies.pace(1e6) == 0.5  # as long as nothing else is observed


def test_memory_stays_bounded_and_stored_times_give_the_same_estimate():
    latency = PathLatency([1.0], 0.0)
    for i in range(10_000):
        latency.observe(1.0 + i % 100, float(i))
    stored = latency.samples()
    assert len(stored) == 1000
    again = PathLatency(stored, 0.0)
    assert again.needs == pytest.approx(latency.needs, abs=1.0)
    assert latency.timing == again.timing == again.profiled
    assert again.timing.p50 == 50.5


@pytest.mark.parametrize("profile", [[], [0.0, 1.0], [-1.0], [float("nan")], [float("inf")]])
def test_profiles_that_cannot_be_are_refused(profile):
    with pytest.raises(ValueError, match="must be one or more finite times above 0"):
        PathLatency(profile, 0.0)


def test_percentiles_by_interpolation():
    t = Timing.of(range(101))
    assert (t.p50, t.p95, t.p99, t.samples) == (50, 95, 99, 101)
    assert Timing.of([2.0]).p99 == 2.0
    assert Timing.of([0.0, 1.0]).p95 == 0.95


def test_recent_values_count_and_old_ones_do_not():
    recent = Recent(kept=10, enough=3, seconds=5.0)
    assert recent.quantiles(0.0) is None
    for i in range(20):
        recent.add(float(i), 0.1 * i)
    assert recent.quantiles(2.0) == (14.0, 19.0)  # of 10 to 19
    assert recent.quantiles(6.45) == (17.0, 19.0)  # of 15 to 19, as the others are older than 5 s
    assert recent.quantiles(6.85) == (17.0, 19.0)  # computed once a second, unless values come
    assert recent.quantiles(7.5) is None


# --- answers that may be late --------------------------------------------------------------------------------

ACCURACIES = {"slow": 0.9, "fast": 0.8}


def observed(paces: list[float]) -> Latencies:
    """Estimates of a path of 4 ms and a path of 1 ms, after times at these multiples of the profile."""
    latencies = Latencies({"slow": [4.0] * 50, "fast": [1.0] * 50}, 0.0)
    for i, pace in enumerate(paces):
        latencies.observe("fast", pace, 0.01 * i)
    return latencies


@pytest.mark.parametrize(
    ("paces", "budget", "path"),
    [
        ([], 5.0, "slow"),  # as in the profile
        ([], 3.9, "fast"),
        ([], 0.5, "fast"),  # too little time for both: the cheapest
        ([3.0] * 32, 5.0, "fast"),  # the machine is slower now
        ([3.0] * 32, 12.0, "slow"),
        ([3.0] * 32 + [1.0] * 32, 5.0, "slow"),  # and fast again
        ([1.0] * 30 + [3.0] * 2, 5.0, "slow"),  # 0.9 · 30/32 is more than 0.8
        ([1.0] * 28 + [3.0] * 4, 5.0, "fast"),  # 0.9 · 28/32 is less
    ],
)
def test_a_path_is_chosen_by_its_chance_to_be_correct_and_in_time(paces, budget, path):
    assert observed(paces).most_right(budget, ACCURACIES) == path


def test_of_equal_paths_the_first_is_chosen():
    assert observed([]).most_right(9.0, {"slow": 1.0, "fast": 1.0}) == "slow"
    assert observed([]).most_right(9.0, {"fast": 1.0, "slow": 1.0}) == "fast"


# --- profiles ------------------------------------------------------------------------------------------------


def test_batches_share_the_times_of_the_next_power_of_two():
    assert [latency_profile.bucket(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_each_path_is_measured_often_enough():
    calls = {"a": 0, "b": 0}

    def task(name: str) -> None:
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
        assert store.file is not None
        store.file.write_text(bad)
        assert store.load(["a"]) == {}
    store.save({1: {"a": [3.0]}})
    assert store.load(["a"]) == {1: {"a": [3.0]}}


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "file"))
    latency_profile.Store({"bundle": "x"}).save({1: {"a": [1.0]}})
