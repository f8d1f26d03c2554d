"""Measures which policy answers most requests correctly *and in time*, under changing budgets and CPU contention.

The requests of the protocol's trace are sent in order, with CIFAR-10's test images. Budgets are multiples of the most
accurate path's median time on the idle machine. During some requests of the trace, a neighbour program keeps every core
busy. Two live policies and every path answer all requests:

live       ``AnytimePredictor.predict(image, budget_ms)`` of the shipped bundle answers, and a second predictor answers
           with ``allow_late``. Each one chooses by the times that it observes
measured   every path of every bundle runs alone, so all other policies are evaluated on the same times and predictions
           (:mod:`polypath.analysis.deadline`)

They take turns after every ``BLOCK`` requests. So each one mostly runs after itself, as on a machine that serves one
network.

The rows are the predictors, the same rules on the measured times, the best fixed path in hindsight, separate networks
with the same rules, and two oracles. Each row has an interval. The result also has the hypervolume of error on all test
images against median milliseconds without a neighbour, and its gain over the separate networks.

``POLYPATH_BENCH_LADDER``     folder of a ladder (``polypath ladder``): its first network is measured too, and its paths
                              trained alone are the separate networks
``POLYPATH_BENCH_BESIDE``     folders of bundles, separated as in PATH: separate networks beside the shipped bundle
``POLYPATH_BENCH_REQUESTS``   largest number of requests (the trace has 2,000)
``POLYPATH_CIFAR10``          folder of CIFAR-10 (default: its name on the Hub)
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

import polypath as pp
from benchmarks.harness import in_random_order, show
from benchmarks.trained import cifar10_test
from polypath.analysis import deadline
from polypath.deploy.budget import BudgetError
from polypath.deploy.bundle import Bundle
from polypath.deploy.latency import Latencies
from polypath.profiling.cores import cores
from polypath.worth.protocol import read_trace
from polypath.worth.replay import neighbour, replay, without_collection

REQUESTS = int(os.environ.get("POLYPATH_BENCH_REQUESTS", "2000"))
PROFILE_RUNS = 200
BATCH = 250  # batch size for scoring
BLOCK = 50  # number of successive requests that one policy answers
LIVE, LATE, FIXED = "AnytimePredictor", "AnytimePredictor, allow_late", "the best fixed path"


def run() -> dict:
    images = cifar10_test()
    beside = [Bundle.open(place) for place in os.environ.get("POLYPATH_BENCH_BESIDE", "").split(os.pathsep) if place]
    found = {"shipped": measure(Bundle.open(), beside, *images, read_trace(REQUESTS))}
    if place := os.environ.get("POLYPATH_BENCH_LADDER"):
        found["ladder"] = measure(*bundles_of(Path(place)), *images, read_trace(REQUESTS))
    return found


def bundles_of(ladder: Path) -> tuple[Bundle, list[Bundle]]:
    """Open the bundles in the folder of a ladder: of its first network, and of each path trained alone.

    Raises:
        ValueError: the ladder has no bundles, since its times were not measured.
    """
    deployed = ladder / "deployed"
    if not deployed.is_dir():
        raise ValueError(
            f"POLYPATH_BENCH_LADDER = {ladder}: has no bundles; run `polypath ladder` without --runtime none"
        )
    return Bundle.open(deployed / "net"), [Bundle.open(place) for place in sorted(deployed.glob("twin*"))]


def measure(bundle: Bundle, apart: list[Bundle], pixels: np.ndarray, labels: np.ndarray, trace: deadline.Trace) -> dict:
    """Send the requests of the trace with images ``pixels`` ``(N, H, W, C)`` uint8, and return the results.

    Args:
        bundle: one network with its paths.
        apart: bundles of separate networks.
        labels: ``(N,)``.
    """
    predictor = pp.AnytimePredictor(bundle)
    others = [pp.AnytimePredictor(one, predictor.runtime.name) for one in apart]
    paths = [(p, path.name) for p in (predictor, *others) for path in p.bundle.paths]
    own = len(bundle.paths)
    right = np.stack([right_answers(p, name, pixels, labels) for p, name in paths], 1)
    errors = 100.0 * (1.0 - right.mean(0))
    tasks = [_task(p, name) for p, name in paths]
    profile = in_random_order([partial(task, pixels[:1]) for task in tasks], PROFILE_RUNS)
    unit = float(np.median(profile[:, int(errors[:own].argmin())]))
    second = pp.AnytimePredictor(bundle, predictor.runtime.name)  # with times of its own, which answers change
    for one in (predictor, second):
        one.warm_up()
        one.profile(1, fresh=True)
    print(f"{predictor.runtime.name}, unit {unit:.3f} ms, {len(trace.budgets)} requests")
    images = np.random.default_rng(trace.seed).integers(0, len(labels), len(trace.budgets))
    live, late = _Live(predictor, late=False), _Live(second, late=True)
    asked = [_Request(pixels[at], int(labels[at]), ms) for at, ms in zip(images, unit * trace.budgets, strict=True)]
    runs = [live, late, *(lambda request, task=task: task(request.pixels[None]) for task in tasks)]
    with neighbour(cores()) as wake, without_collection():
        times = replay(runs, asked, trace.neighbour.tolist(), wake, BLOCK)[:, 2:]
    at = right[images]
    one = deadline.Measured(unit * trace.budgets, times[:, :own], at[:, :own])
    order = np.argsort(errors[:own]).tolist()
    chosen = {
        "the same rule, measured times": deadline.by_needs(one, order, profile[:, :own]),
        "allow_late, measured times": by_chance(one, order, profile[:, :own], errors[:own]),
        FIXED: deadline.fixed(one),
        "oracle of times": deadline.in_time(one, order),
        "oracle of times and answers": deadline.oracle(one),
    }
    outcomes = {LIVE: np.array(live.right), LATE: np.array(late.right)}
    outcomes |= {name: one.outcome(c) for name, c in chosen.items()}
    if apart:
        rest = deadline.Measured(unit * trace.budgets, times[:, own:], at[:, own:])
        ranked = np.argsort(errors[own:]).tolist()
        outcomes["separate networks, the same rule"] = rest.outcome(deadline.by_needs(rest, ranked, profile[:, own:]))
        late_choice = by_chance(rest, ranked, profile[:, own:], errors[own:])
        outcomes["separate networks, allow_late"] = rest.outcome(late_choice)
        outcomes["separate networks, oracle of times"] = rest.outcome(deadline.in_time(rest, ranked))
    rows = [
        {"way": name, **asdict(deadline.deadline_accuracy(outcome)), **_gain(outcomes[LIVE], outcome)}
        for name, outcome in outcomes.items()
    ]
    show("Right and in time", rows, {"way": "", "value": ".3f", "low": ".3f", "high": ".3f"})
    names = [name for _, name in paths]
    return {
        "bundle": bundle.name,
        "runtime": predictor.runtime.name,
        "requests": len(images),
        "unit_ms": unit,
        "rows": rows,
        "fixed": names[int(chosen[FIXED][0])],
        "used": live.used(),
        "used_late": late.used(),
        "paths": [
            {"bundle": p.bundle.name, "path": name, "error": float(error), **_spread(row, times[:, i], trace)}
            for i, ((p, name), error, row) in enumerate(zip(paths, errors, profile.T, strict=True))
        ],
        "hypervolume": _hypervolumes(profile, right, own),
    }


@dataclass(frozen=True)
class _Request:
    """An image ``(H, W, C)`` uint8 with its class, and the budget in milliseconds."""

    pixels: np.ndarray
    label: int
    budget: float


class _Live:
    """A predictor that answers requests.

    Attributes:
        right: for each request so far, whether the answer was correct and in time.
        paths: for each request so far, the path that was used, or ``refused``.
    """

    def __init__(self, predictor: pp.AnytimePredictor, *, late: bool) -> None:
        self.predictor, self.late = predictor, late
        self.right: list[bool] = []
        self.paths: list[str] = []

    def __call__(self, request: _Request) -> None:
        start = time.perf_counter()
        try:
            answer = self.predictor.predict(request.pixels, budget_ms=request.budget, allow_late=self.late)
        except BudgetError:
            self.right.append(False)
            self.paths.append("refused")
            return
        took = 1e3 * (time.perf_counter() - start)
        self.right.append(bool(answer.labels[0] == request.label) and took <= request.budget)
        self.paths.append(answer.path)

    def used(self) -> dict[str, int]:
        """Count the requests of each path."""
        return {name: self.paths.count(name) for name in dict.fromkeys(self.paths)}


def by_chance(
    measured: deadline.Measured, order: Sequence[int], profile: np.ndarray, errors: np.ndarray
) -> deadline.Chosen:
    """Choose a path for each request as a predictor with ``allow_late`` does, from measured times.

    Args:
        order: the paths, the most accurate first.
        profile: milliseconds ``(runs, paths)``.
        errors: errors in percent, ``(paths,)``.
    """
    latencies = Latencies({str(path): profile[:, path].tolist() for path in order}, 0.0)
    accuracies = {str(path): 1 - errors[path] / 100 for path in order}
    chosen = []
    for i, budget in enumerate(measured.budgets):
        path = latencies.most_right(float(budget), accuracies)
        latencies.observe(path, float(measured.times[i, int(path)]), float(i))
        chosen.append(int(path))
    return np.array(chosen, np.int64)


def _hypervolumes(profile: np.ndarray, right: np.ndarray, own: int) -> dict:
    """Compute hypervolumes in a common box. It goes from half the fastest path's median time to twice the slowest
    path's, and up to an error of 90%."""
    medians = np.median(profile, 0)
    box = (float(medians.min()) / 2, 2 * float(medians.max()), 90.0)
    draws = deadline.hypervolume_draws(profile[:, :own], right[:, :own], box)
    found = {"box": box, "paths of one network": asdict(deadline.interval_of(draws))}
    if own < right.shape[1]:
        apart = deadline.hypervolume_draws(profile[:, own:], right[:, own:], box)
        found["separate networks"] = asdict(deadline.interval_of(apart))
        found["gain"] = asdict(deadline.interval_of(draws - apart))
    return found


def _gain(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Count the requests that only ``ours`` answered correctly and in time, and those that only ``theirs`` did."""
    return {"only_ours": int((ours & ~theirs).sum()), "only_theirs": int((theirs & ~ours).sum())}


def _spread(profile: np.ndarray, times: np.ndarray, trace: deadline.Trace) -> dict:
    rows = {"calm": profile, "alone": times[~trace.neighbour], "with_neighbour": times[trace.neighbour]}
    found = {name: np.quantile(row, (0.5, 0.99)).tolist() for name, row in rows.items() if len(row)}
    return {f"{name}_p50_p99_ms": [round(ms, 4) for ms in pair] for name, pair in found.items()}


def right_answers(predictor: pp.AnytimePredictor, path: str, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which images of ``pixels`` ``(N, H, W, C)`` uint8 a path classifies correctly, ``(N,)``."""
    parts = [predictor.prepared(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
    return np.concatenate([predictor.run_path(path, x).argmax(1) for x in parts]) == labels


def _task(predictor: pp.AnytimePredictor, path: str):
    return lambda image: predictor.run_path(path, predictor.prepared(image))
