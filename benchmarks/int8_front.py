"""Measures whether int8 pays: the front of test error against milliseconds, with int8 paths and without.

Each run in ``POLYPATH_BENCH_RUNS`` (folders, separated as in PATH) is exported in float32, and again in int8, into
``POLYPATH_BENCH`` (default ``runs/bench``). Existing exports are used again. The float32 bundle has the paths that an
export chooses, among those that a search found if the run was searched. The int8 bundle has the same paths, even those
that lose accuracy; the front decides.

All paths run in turn, in each runtime, on batches of 1 and 64 images. Errors are those of the same runtime on all test
images. ``gain`` is the hypervolume of all paths minus that of the float32 paths, with an interval over images and runs.
The errors hold for this machine's instructions, which the result names.

``POLYPATH_CIFAR10``   folder of CIFAR-10 (default: its name on the Hub)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

import polypath as pp
from benchmarks.deadline import right_answers
from benchmarks.harness import in_random_order, show
from benchmarks.trained import PLACE, cifar10_test
from polypath.analysis import deadline
from polypath.cli import main
from polypath.core.extras import installed
from polypath.deploy.bundle import Bundle
from polypath.deploy.manifest import BundlePath
from polypath.profiling.instructions import instructions

RUNTIMES = ("openvino", "onnxruntime")
TURNS = {1: 300, 64: 30}  # batch size, number of measurements of each path


def run() -> dict:
    runs = [Path(place) for place in os.environ.get("POLYPATH_BENCH_RUNS", "").split(os.pathsep) if place]
    if not runs:
        raise ValueError("POLYPATH_BENCH_RUNS is empty: give folders of finished runs")
    images = cifar10_test()
    networks = []
    for place in runs:
        found = ["found"] if (place / "search.json").is_file() else []
        plain = exported(place, "float32", found)
        kept = [path.text for path in plain.paths]
        bundles = [plain, exported(place, "int8", kept, "--keep", "--max-drop", "100")]
        sides = [measured(bundles, name, *images) for name in RUNTIMES if installed(name)]
        networks.append({"name": place.name, "family": bundles[0].manifest.family, "runtimes": sides})
    return {"kind": instructions(), "networks": networks}


def exported(run: Path, precision: str, paths: Sequence[str], *options: str) -> Bundle:
    """Open the export of some paths of a run in a precision. Export them first if there is no such export."""
    folder = PLACE / "int8" / f"{run.name}-{precision}"
    if not (folder / "manifest.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        chosen = [word for path in paths for word in ("--paths", path)]
        if main(["export", str(run), "--precision", precision, "--out", str(folder), *chosen, *options]):
            raise ValueError(f"{run}: cannot be exported in {precision}")
    return Bundle.open(folder)


def measured(bundles: list[Bundle], runtime: str, pixels: np.ndarray, labels: np.ndarray) -> dict:
    """Return times, test errors and hypervolumes of the paths of two bundles, float32 and int8, in one runtime."""
    predictors = [
        pp.AnytimePredictor(bundle, runtime, precision=precision)
        for bundle, precision in zip(bundles, ("f32", "int8"), strict=True)
    ]
    paths = [(one, path) for one in predictors for path in one.bundle.paths]
    floats = len(predictors[0].bundle.paths)
    right = np.stack([right_answers(one, path.name, pixels, labels) for one, path in paths], 1)
    errors = 100.0 * (1.0 - right.mean(0))
    batches = {}
    for batch, turns in TURNS.items():
        x = predictors[0].prepared(pixels[:batch])
        batches[batch] = in_random_order([partial(one.run_path, path.name, x) for one, path in paths], turns)
    rows = [
        {"path": path.name, "precision": path.precision, "error": float(error), "bytes": _bytes(one.bundle, path)}
        | {f"batch_{batch}_ms": float(np.median(times[:, i])) for batch, times in batches.items()}
        for i, ((one, path), error) in enumerate(zip(paths, errors, strict=True))
    ]
    columns = {"path": "", "precision": "", "error": ".2f", "batch_1_ms": ".3f", "batch_64_ms": ".2f", "bytes": ","}
    show(f"{runtime}, {instructions()}", rows, columns)
    gains = {batch: _gain(times, right, floats) for batch, times in batches.items()}
    for batch, gain in gains.items():
        print(f"batch {batch}: hypervolume {gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}] by int8")
    return {"runtime": runtime, "rows": rows, "gain": gains}


def _gain(times: np.ndarray, right: np.ndarray, floats: int) -> dict:
    """Return the hypervolume of all paths minus that of the first ``floats`` paths, with its interval."""
    medians = np.median(times, 0)
    box = (float(medians.min()) / 2, 2 * float(medians.max()), 90.0)
    both = deadline.hypervolume_draws(times, right, box)
    return asdict(deadline.interval_of(both - deadline.hypervolume_draws(times[:, :floats], right[:, :floats], box)))


def _bytes(bundle: Bundle, path: BundlePath) -> int:
    """Return the size of a path alone: its float32 weights, or its int8 graph with the weights."""
    return 4 * path.params if path.precision == "f32" else bundle.graphs.file(path).stat().st_size
