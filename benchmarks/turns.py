"""Measures whether paths disturb each other when a bundle's paths run in turn, as under changing budgets.

Each path of the shipped bundle runs many times in succession (``same``), and in random order with the other paths
(``turns``). The rows compare the runtimes, and ONNX Runtime with and without idle threads that busy-wait (*spin*) for
their session's next run. With several sessions, these threads occupy the cores that the running session needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import in_random_order, show
from polypath.core.extras import installed
from polypath.deploy.bundle import Bundle
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.runtimes.onnxruntime_ import caller, make_session
from polypath.profiling.cores import cores

RUNS = 300
WARM_UPS = 10


def run() -> dict:
    bundle, rows = Bundle.open(), []
    x = np.random.default_rng(0).normal(size=(1, bundle.preparation.channels, *bundle.size)).astype(np.float32)
    for name in ("openvino", "onnxruntime", "torch"):
        if installed(name):
            runtime = open_runtime(name, bundle)
            rows += measured(name, {path.name: partial(runtime.prepare(path.name, 1), x) for path in bundle.paths})
    if installed("onnxruntime"):
        spinning: dict[str, Callable[[], Any]] = {}
        for path in bundle.paths:
            file = bundle.graphs.file(path)
            spinning[path.name] = partial(caller(make_session(str(file), cores(), spin=True), file), x)
        rows += measured("onnxruntime, spinning", spinning)
    columns = {"runtime": "", "path": "", "same_ms": ".2f", "turns_ms": ".2f", "turns_p99_ms": ".2f"}
    show("Paths in succession and in turn", rows, columns)
    return {"bundle": bundle.name, "runs": RUNS, "rows": rows}


def measured(runtime: str, tasks: dict[str, Callable[[], Any]]) -> list[dict]:
    """Return a row for each path: median milliseconds in succession, and median and 99th percentile in turn."""
    turns = in_random_order(list(tasks.values()), RUNS, WARM_UPS)
    return [
        {
            "runtime": runtime,
            "path": name,
            "same_ms": float(np.median(in_random_order([task], RUNS, WARM_UPS))),
            "turns_ms": float(np.median(turns[:, i])),
            "turns_p99_ms": float(np.quantile(turns[:, i], 0.99)),
        }
        for i, (name, task) in enumerate(tasks.items())
    ]
