"""Runs the shipped bundle as CUDA graphs, in float32 and bf16. Compares the results with those of torch on the CPU, and
measures the speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

import polypath as pp
from benchmarks.gpu.plan import Plan
from polypath.deploy.bundle import Bundle
from polypath.deploy.runtimes import open_runtime

WITHIN = {"f32": 1e-2, "bf16": 1e-1}  # tolerance as a share of the largest logit; convs in float32 may use TF32
CALLS = 50


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    bundle = Bundle.open()
    paths = [path.name for path in bundle.paths][:: 1 if plan.cut is None else 4]
    found: dict[str, Callable[[], dict[str, Any]]] = {
        f"{path}, {precision}": partial(_path, bundle, path, precision, plan) for path in paths for precision in WITHIN
    }
    return {**found, "predictor": partial(_predictor, bundle)}


def _path(bundle: Bundle, path: str, precision: str, plan: Plan) -> dict[str, Any]:
    graphs, torch_ = open_runtime("cuda-graphs", bundle, precision=precision), open_runtime("torch", bundle)
    rows = []
    for batch in (1, *plan.batches):
        draw = np.random.default_rng(batch)
        first, other = (draw.standard_normal((batch, 3, *bundle.size), np.float32) for _ in range(2))
        run, reference = graphs.prepare(path, batch), torch_.prepare(path, batch)
        off = max(_off(run(x), reference(x)) for x in (first, other))  # a second input, in case inputs are not read
        if off > WITHIN[precision]:
            raise AssertionError(f"{path}, {precision}, batch {batch}: the logits differ from the CPU's by {off:.1e}")
        times = [_timed(run, first) for _ in range(CALLS if plan.cut is None else 2)]
        rows.append({
            "path": path, "precision": precision, "batch": batch, "share": off, "within": WITHIN[precision],
            "median_ms": median(times), "min_ms": min(times), "max_ms": max(times),
        })  # fmt: skip
    return {"rows": rows}


def _predictor(bundle: Bundle) -> dict[str, Any]:
    """Check the default use: the predictor chooses CUDA graphs as the runtime, and meets a budget."""
    predictor = pp.AnytimePredictor(bundle, profile=0.1)
    pixels = np.zeros((1, *bundle.size, 3), np.uint8)
    answer = predictor.predict(pixels, budget_ms=1000)
    if predictor.runtime.name != "cuda-graphs":
        raise AssertionError(f"the predictor chose the runtime {predictor.runtime.name}: must be cuda-graphs")
    return {"answered": {"path": answer.path, "ms": answer.ms, "device": predictor.runtime.device}}


def _off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _timed(run: Callable[[np.ndarray], Any], x: np.ndarray) -> float:
    begun = time.perf_counter()
    run(x)  # a run ends when its logits are on the host
    return 1e3 * (time.perf_counter() - begun)
