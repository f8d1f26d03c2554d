"""Measures milliseconds for one image on one thread. All paths of all networks run alternately in one runtime.

Each path runs twice in a row, and only the second run counts, as in :mod:`polypath.worth.deployed`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.deploy import check
from polypath.deploy.bundle import Bundle
from polypath.deploy.latency import Timing, disturbed
from polypath.deploy.latency_profile import machine
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.write import write_bundle
from polypath.profiling.latency import interleaved
from polypath.storage.files import read_json, write_json
from polypath.storage.loading import load

REPEATS = 200
THREADS = 1


def bundle_of(folder: Path, model: Path, paths: Sequence[str]) -> Bundle:
    """Open the bundle of a trained network's paths. Write it first if it is missing."""
    try:
        return Bundle.open(folder)
    except ValueError:  # the bundle is missing or incomplete
        shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return write_bundle(load(model), folder, list(paths))


def timed(file: Path, runtime: str, bundles: Mapping[str, Bundle], repeats: int = REPEATS) -> dict[str, Any]:
    """Measure the times of all paths. Return JSON values: ``name``, ``version``, ``threads``, ``repeats``, ``busy``,
    ``machine`` and, by bundle and path, ``times``. If ``file`` has the times of the same bundles in the same runtime,
    read it instead."""
    of = {name: bundle.digest for name, bundle in bundles.items()}
    if file.is_file() and (known := read_json(file))["of"] == of and known["name"] == runtime:
        return known
    opened = {name: open_runtime(runtime, bundle, threads=THREADS) for name, bundle in bundles.items()}
    tasks = {}
    for name, bundle in bundles.items():
        prep = bundle.manifest.preparation
        x = check.images(1, (prep.channels, *prep.size)).numpy()
        for path in bundle.paths:
            run = opened[name].prepare(path.name, 1)
            for turn in ("first", "again"):
                tasks[f"{turn} {name} {path.name}"] = lambda run=run, x=x: run(x)
    taken = {key: [1e3 * s for s in seconds] for key, seconds in interleaved(tasks, repeats).items()}
    times = {}
    for name, bundle in bundles.items():
        rows = {path.name: Timing.of(taken[f"again {name} {path.name}"]) for path in bundle.paths}
        times[name] = {path: {"p50_ms": round(t.p50, 4), "p95_ms": round(t.p95, 4)} for path, t in rows.items()}
    one = next(iter(opened.values()))
    found = {
        "name": one.name,
        "version": one.version,
        "threads": THREADS,
        "repeats": repeats,
        "busy": any(map(disturbed, taken.values())),
        "machine": machine(),
        "of": of,
        "times": times,
    }
    write_json(file, found)
    return found
