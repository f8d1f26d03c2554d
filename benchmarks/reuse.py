"""Measures answers that build on each other: all steps of a ladder of nested paths, compared with the whole network.

The network is a ResNet-20 of four times the width with exits after its first two stages. It runs in every installed
runtime. The steps run as in :meth:`polypath.deploy.AnytimePredictor.predict_until`: each starts from tensors of earlier
steps. ``alone`` runs the three paths completely, one after the other. The aim is that all steps together take at most
1.15 times the MACs and the time of the whole network. Weights are random, since time does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import polypath as pp
from benchmarks.harness import by_turns, show
from benchmarks.trained import PLACE
from polypath.core.extras import installed
from polypath.deploy.bundle import Bundle
from polypath.deploy.climber import Climb
from polypath.deploy.runtimes import Runtime, open_runtime
from polypath.families.resnet import ResNet

LIMIT = 1.15
BATCHES = (1, 16)
SECONDS = 10.0
RUNTIMES = ("openvino", "onnxruntime", "torch")


def run() -> dict:
    bundle = written()
    macs = [path.macs for path in bundle.paths]
    counted = sum(rung.step.macs for rung in bundle.ladder if rung.step is not None) / max(macs)
    rows = [row for name in RUNTIMES if installed(name) for row in measured(bundle, name, BATCHES, SECONDS)]
    columns = {"runtime": "", "batch": "", "steps_ms": ".3f", "whole_ms": ".3f", "alone_ms": ".3f", "ratio": ".3f"}
    show(f"All steps beside the whole network; counted {counted:.3f}", rows, columns)
    return {"limit": LIMIT, "counted": counted, "rows": rows, "kept": all(row["ratio"] <= LIMIT for row in rows)}


def written() -> Bundle:
    """Open the bundle. Write it first if it is missing."""
    folder = PLACE / "exits-bundle"
    if not folder.is_dir():
        PLACE.mkdir(parents=True, exist_ok=True)
        net = ResNet(depth=20, width=64, exits=(1, 2)).build(seed=0)
        net.config |= {"normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}, "image": {"size": [32, 32]}}
        pp.write_bundle(net, folder, ["exit=1", "exit=2", "whole"])
    return Bundle.open(folder)


def measured(bundle: Bundle, name: str, batches: tuple[int, ...], seconds: float) -> list[dict]:
    """Return a row for each batch size: median times, and all steps' time divided by that of the whole network."""
    runtime, rows = open_runtime(name, bundle), []
    for batch in batches:
        x = np.random.default_rng(0).normal(size=(batch, bundle.preparation.channels, *bundle.size)).astype(np.float32)
        alone = [runtime.prepare(rung.path, batch) for rung in bundle.ladder]
        tasks = {
            "steps": steps(runtime, x),
            "whole": lambda x=x, run=alone[-1]: run(x),
            "alone": lambda x=x, runs=tuple(alone): [run(x) for run in runs],
        }
        times = by_turns(tasks, seconds)
        row = {f"{key}_ms": 1e3 * found["median_s"] for key, found in times.items()}
        rows.append({"runtime": name, "batch": batch, **row, "ratio": row["steps_ms"] / row["whole_ms"]})
    return rows


def steps(runtime: Runtime, x: np.ndarray) -> Callable[[], None]:
    """Return a function that runs all steps of the ladder. No step runs its complete path."""
    known = tuple(runtime.steps)
    runs = [runtime.prepare_step(i, len(x)) for i in range(len(known))]

    def climb() -> None:
        held = Climb(known, x)
        for i, (step, run) in enumerate(zip(known, runs, strict=True)):
            assert step is not None
            _, *left = run(*held.inputs(step))
            held.leave(i, left)

    return climb
