"""Measures which policy answers most requests correctly *and in time*, under changing budgets and CPU contention.

The requests of the protocol's trace are sent in order, with CIFAR-10's test images. Budgets are multiples of the most
accurate path's median time on the idle machine. During some requests of the trace, a neighbour program keeps every core
busy. For each request, there are two steps:

live       ``AnytimePredictor.predict(image, budget_ms)`` of the shipped bundle answers. Then a second predictor answers
           with ``allow_late``, which tries the cheapest path where the first predictor refuses
measured   then every path of every bundle runs once alone, so all other policies are evaluated on the same times and
           predictions (:mod:`polypath.analysis.deadline`)

The rows are the predictor, the same rule on the measured times, the best fixed path in hindsight, separate networks
with the same rule, and two oracles. Each row has an interval. The result also has the hypervolume of error on all test
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
from dataclasses import asdict
from pathlib import Path

import numpy as np

import polypath as pp
from benchmarks.harness import show
from benchmarks.trained import cifar10
from polypath.analysis import deadline
from polypath.deploy.budget import BudgetError
from polypath.deploy.bundle import Bundle
from polypath.profiling.cores import cores
from polypath.training.recipe import replace
from polypath.training.recipes import get_recipe
from polypath.worth.protocol import read_trace
from polypath.worth.replay import neighbour, replay, timed, without_collection

REQUESTS = int(os.environ.get("POLYPATH_BENCH_REQUESTS", "2000"))
PROFILE_RUNS = 200
BATCH = 250  # batch size for scoring
LIVE, LATE, FIXED = "AnytimePredictor", "AnytimePredictor, allow_late", "the best fixed path"


def run() -> dict:
    from polypath.data.sources import load_images
    from polypath.data.split import Split

    recipe = get_recipe("fractalnet-cifar10-bundle")
    test = load_images(replace(recipe, {"data.source": cifar10()}).data).test
    assert isinstance(test, Split)
    images = test.images.permute(0, 2, 3, 1).numpy(), test.labels.numpy()
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
    profile = np.array([[timed(task, pixels[:1]) for task in tasks] for _ in range(3 + PROFILE_RUNS)])[3:]
    unit = float(np.median(profile[:, int(errors[:own].argmin())]))
    second = pp.AnytimePredictor(bundle, predictor.runtime.name)  # with times of its own, which answers change
    for one in (predictor, second):
        one.warm_up()
        one.profile(1, fresh=True)
    print(f"{predictor.runtime.name}, unit {unit:.3f} ms, {len(trace.budgets)} requests")
    images = np.random.default_rng(trace.seed).integers(0, len(labels), len(trace.budgets))
    times, live, tried, used = np.empty((len(images), len(paths))), [], [], []
    with neighbour(cores()) as wake, without_collection():
        for i, (at, budget) in enumerate(zip(images, unit * trace.budgets, strict=True)):
            wake(bool(trace.neighbour[i]))
            kept, path = _asked(predictor, pixels[at], int(labels[at]), budget, late=False)
            live.append(kept)
            used.append(path)
            tried.append(_asked(second, pixels[at], int(labels[at]), budget, late=True)[0])
            times[i] = replay(tasks, [pixels[at : at + 1]], [bool(trace.neighbour[i])], wake)[0]
    at = right[images]
    one = deadline.Measured(unit * trace.budgets, times[:, :own], at[:, :own])
    order = np.argsort(errors[:own]).tolist()
    chosen = {
        "the same rule, measured times": deadline.by_needs(one, order, profile[:, :own]),
        FIXED: deadline.fixed(one),
        "oracle of times": deadline.in_time(one, order),
        "oracle of times and answers": deadline.oracle(one),
    }
    outcomes = {LIVE: np.array(live), LATE: np.array(tried)} | {name: one.outcome(c) for name, c in chosen.items()}
    if apart:
        rest = deadline.Measured(unit * trace.budgets, times[:, own:], at[:, own:])
        ranked = np.argsort(errors[own:]).tolist()
        outcomes["separate networks, the same rule"] = rest.outcome(deadline.by_needs(rest, ranked, profile[:, own:]))
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
        "used": {name: used.count(name) for name in dict.fromkeys(used)},
        "paths": [
            {"bundle": p.bundle.name, "path": name, "error": float(error), **_spread(row, times[:, i], trace)}
            for i, ((p, name), error, row) in enumerate(zip(paths, errors, profile.T, strict=True))
        ],
        "hypervolume": _hypervolumes(profile, right, own),
    }


def _asked(
    predictor: pp.AnytimePredictor, pixels: np.ndarray, label: int, budget: float, *, late: bool
) -> tuple[bool, str]:
    """Return whether the answer is correct and in time, and the path that was used."""
    start = time.perf_counter()
    try:
        answer = predictor.predict(pixels, budget_ms=budget, allow_late=late)
    except BudgetError:
        return False, "refused"
    took = 1e3 * (time.perf_counter() - start)
    return bool(answer.labels[0] == label) and took <= budget, answer.path


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
