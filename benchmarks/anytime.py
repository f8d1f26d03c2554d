"""Measures, at batch size 1, whether the predictor keeps its budgets, and its overhead over the bare runtime.

Two networks are trained briefly. Their paths are ranked by MACs, since errors mean little after such a short training.
Three things are measured for each network:

overhead   for each path, p50 of ``predict(image, path=...)`` minus p50 of the runtime's call inside it
budgets    2,000 requests for each of five budgets, in equal ratios from 1.5 × the cheapest path's p99 to twice the
           whole network's p50. Two numbers are counted: answers in time, and answers by the right path. The right
           path is the most accurate path whose p99 and overhead fit the budget (for the largest budget, the whole
           network). A machine's p99 drifts, so fitting paths are found for each quarter of the requests: after every
           request, each path runs once alone. If the share of a path's late runs is not significantly different from
           1% (exact binomial test, 5%), the path may count as fitting or as not fitting
refusal    the time until a budget below the cheapest path's p99 is rejected
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import polypath as pp
from benchmarks.trained import PLACE, briefly
from polypath.deploy.budget import BudgetError
from polypath.deploy.bundle import Bundle
from polypath.deploy.latency import Timing
from polypath.deploy.write import write_bundle

REQUESTS, PARTS, TURNS = 2000, 4, 400
SECONDS = 20.0  # seconds of profiling for each path
NETS = {
    "crescendonet_128": (
        "crescendonet-cifar10-small",
        {"model.widths": (128, 128, 128)},
        {"images": 200, "epochs": 1, "test_images": 100, "validation": 100},
        ["branches=1", "branches=2", "branches=3", "branches=2,3", "whole"],
    ),
    "fractalnet16_small": (
        "fractalnet-cifar10-small",
        {},
        {"images": 2000, "epochs": 1, "test_images": 100},
        ["column=1", "column=2", "column=3", "whole"],
    ),
}


def run() -> dict:
    rows = {name: _one(bundle(name), REQUESTS, TURNS) for name in NETS}
    rows["the shipped bundle"] = _one(Bundle.open(), REQUESTS, TURNS)
    return {"requests": REQUESTS, "networks": rows, "kept": all(row["kept"] for row in rows.values())}


def bundle(name: str) -> Bundle:
    """Open the bundle of a network. Write the bundle first if it is missing."""
    recipe, changes, few, paths = NETS[name]
    folder = PLACE / f"{name}-bundle"
    if not folder.is_dir():
        net = pp.load(_trained(recipe, name, few, changes) / "model")
        write_bundle(net, folder, paths, name=name, about={"trained": f"{few}, by {recipe}"})
    return Bundle.open(folder)


def _trained(recipe: str, name: str, few: dict, changes: dict) -> Path:
    return briefly(recipe, name, **few, **changes)


def _one(bundle: Bundle, requests: int, turns: int) -> dict:
    predictor = pp.AnytimePredictor(bundle)
    size = (1, *bundle.size, bundle.preparation.channels)
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    print(f"{bundle.name}: {predictor.runtime.name} {predictor.runtime.version}")
    overhead = _overhead(predictor, image, turns)
    profile = predictor.profile(1, fresh=True, seconds=SECONDS)
    ranked = predictor._ranked
    cheapest = min(t.p99 for t in profile.values())
    budgets = np.geomspace(1.5 * cheapest, 2.0 * profile[ranked[0]].p50, 5)
    rows = []
    for i, budget in enumerate(budgets):
        largest = i == len(budgets) - 1
        rows.append(_requests(predictor, image, float(budget), overhead, requests, whole=largest))
        print("  ", rows[-1])
    refused = _refusal(predictor, image, 0.5 * cheapest)
    kept = (
        max(overhead.values()) <= 0.2
        and all(row["in_time"] >= 0.99 and row["used_right"] >= 0.95 for row in rows)
        and refused["refused"]
    )
    return {
        "runtime": predictor.runtime.name,
        "version": predictor.runtime.version,
        "profile": {name: asdict(t) for name, t in profile.items()},
        "overhead_p50_ms": overhead,
        "budgets": rows,
        "below_the_cheapest": refused,
        "about": bundle.manifest.about.get("trained", ""),
        "kept": kept,
    }


def _overhead(predictor: pp.AnytimePredictor, image: np.ndarray, turns: int) -> dict[str, float]:
    found, inner, prepare = {}, [0.0], predictor.runtime.prepare

    def timed(path: str, batch: int):
        run = prepare(path, batch)

        def call(x):
            start = time.perf_counter()
            out = run(x)
            inner[0] = time.perf_counter() - start
            return out

        return call

    predictor.runtime.prepare = timed
    try:
        for path in predictor.bundle.paths:
            above = []
            for _ in range(turns):
                start = time.perf_counter()
                predictor.predict(image, path=path.name)
                above.append(1e3 * (time.perf_counter() - start - inner[0]))
            found[path.name] = round(Timing.of(above).p50, 4)
    finally:
        predictor.runtime.prepare = prepare
    print("   overhead", found)
    return found


def _requests(
    predictor: pp.AnytimePredictor, image: np.ndarray, budget: float, overhead: dict[str, float], n: int, *, whole: bool
) -> dict:
    x = predictor.prepared(image)
    may = [name for name in predictor._ranked if predictor.profile(1)[name].p50 <= budget]
    runs = {name: predictor.runtime.prepare(name, 1) for name in may}
    took, used, refused, right, parts = [], [], 0, 0, []
    for _ in range(PARTS):
        late, names = dict.fromkeys(runs, 0), []
        for _ in range(n // PARTS):
            start = time.perf_counter()
            try:
                names.append(predictor.predict(image, budget_ms=budget).path)
            except BudgetError:
                refused += 1
            else:
                took.append(1e3 * (time.perf_counter() - start))
            for name, run in [] if whole else runs.items():
                start = time.perf_counter()
                run(x)
                late[name] += 1e3 * (time.perf_counter() - start) + overhead[name] > budget
        wanted = predictor._ranked[:1] if whole else _right(late, n // PARTS)
        right += sum(name in wanted for name in names)
        used += names
        parts.append({"right_paths": wanted} | ({} if whole else {"late_alone": late}))
    timing = Timing.of(took)
    return {
        "budget_ms": round(budget, 4),
        "in_time": sum(ms <= budget for ms in took) / n,
        "refused": refused,
        "used_right": right / n,
        "used": {name: used.count(name) for name in dict.fromkeys(used)},
        **{key: round(value, 4) for key, value in asdict(timing).items() if key != "samples"},
        "max": round(max(took), 4),
        "quarters": parts,
    }


def _right(late: dict[str, int], runs: int) -> list[str]:
    """Return the most accurate path whose 99th percentile fits. Before it, return the more accurate paths for which
    ``runs`` runs are too few to decide whether they fit."""
    found = []
    for name, count in late.items():  # the most accurate path comes first
        if binomtest(count, runs, 0.01, alternative="greater").pvalue < 0.05:
            continue
        found.append(name)
        if binomtest(count, runs, 0.01, alternative="less").pvalue < 0.05:
            break
    return found


def _refusal(predictor: pp.AnytimePredictor, image: np.ndarray, budget: float) -> dict:
    took, text = [], ""
    for _ in range(200):
        start = time.perf_counter()
        try:
            predictor.predict(image, budget_ms=budget)
        except BudgetError as error:
            text = str(error)
        took.append(1e3 * (time.perf_counter() - start))
    t = Timing.of(took)
    return {"budget_ms": budget, "refused": bool(text), "says": text, "p50_ms": t.p50, "p99_ms": t.p99}
