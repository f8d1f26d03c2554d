"""Measures the times of a network's paths in a runtime, the cost of switching between them, and their memory. The
memory is compared with that of separate networks.

Paths alternate. Each path runs one image twice in a row: first just after another path, then just after itself. The
cost of a switch is the difference between the medians of these two times. Memory is measured in new processes
(:mod:`polypath.worth.loaded`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import check, one_of
from polypath.core.extras import installed
from polypath.core.network import PathNet
from polypath.core.paths import WHOLE_TEXT, Paths
from polypath.deploy import check as images
from polypath.deploy.bundle import Bundle
from polypath.deploy.latency import Timing, disturbed
from polypath.deploy.latency_profile import machine
from polypath.deploy.needs import check_installed
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.write import write_bundle
from polypath.profiling.cores import cores
from polypath.profiling.latency import interleaved
from polypath.worth.loaded import memory_loaded

RUNTIMES = ("openvino", "onnxruntime", "torch")
REPEATS = 100
LOG = logging.getLogger(__name__)


def runtime_name(asked: str | None) -> str | None:
    """Return the runtime to measure in, or None if none is requested or none is available.

    Raises:
        ValueError: the name is unknown.
        ImportError: the runtime is requested by name, but is not installed.
    """
    if asked is None:
        return None
    check("runtime", asked, one_of("auto", *RUNTIMES))
    try:
        check_installed("bundle")
    except ImportError as error:
        if asked != "auto":
            raise
        LOG.warning("times are not measured: %s", error)
        return None
    if asked != "auto" and not installed(asked):
        raise ImportError(f"runtime {asked!r} is not installed: pip install 'polypath[deploy]'")
    return next(name for name in RUNTIMES if installed(name)) if asked == "auto" else asked


def deployed(
    runtime: str,
    folder: Path,
    net: PathNet,
    paths: Mapping[str, Paths],
    statistics: BatchNormStatistics | None,
    twins: Mapping[str, PathNet],
) -> dict[str, Any]:
    """Measure times and memory of ``paths`` in one bundle, and the memory of the ``twins`` in one bundle each.

    Return JSON values: ``name``, ``version``, ``threads``, ``repeats``, ``busy`` (whether something disturbed the
    times), ``machine``, ``memory`` (MiB of the ``net`` and of the ``twins``, or None) and ``times`` by path. Bundles
    are written below ``folder``. Existing bundles are reused.
    """
    one = _bundle(folder / "net", net, paths, statistics)
    apart = [
        _bundle(folder / f"twin{i}", twin, {WHOLE_TEXT: twin.paths(None)}) for i, twin in enumerate(twins.values(), 1)
    ]
    opened = open_runtime(runtime, one)
    prep = one.manifest.preparation
    x = images.images(1, (prep.channels, *prep.size)).numpy()
    runs = {name: opened.prepare(name, 1) for name in paths}
    tasks = {}
    for name, run in runs.items():
        tasks |= {(name, turn): (lambda run=run: run(x)) for turn in ("switched", "again")}
    keys = {f"{turn} {name}": (name, turn) for name, turn in tasks}
    taken = interleaved({text: tasks[key] for text, key in keys.items()}, REPEATS)
    ms = {keys[text]: [1e3 * s for s in seconds] for text, seconds in taken.items()}
    times = {}
    for name in paths:
        again, switched = Timing.of(ms[name, "again"]), Timing.of(ms[name, "switched"])
        row = {"p50_ms": round(again.p50, 4), "p95_ms": round(again.p95, 4)}
        times[name] = row | ({"switch_ms": round(switched.p50 - again.p50, 4)} if len(paths) > 1 else {})
    memory = {
        "net": memory_loaded(runtime, [one.folder]),
        "twins": memory_loaded(runtime, [bundle.folder for bundle in apart]),
    }
    return {
        "name": opened.name,
        "version": opened.version,
        "threads": cores(),
        "repeats": REPEATS,
        "busy": any(map(disturbed, ms.values())),
        "machine": machine(),
        "memory": memory if all(mib is not None for mib in memory.values()) else None,
        "times": times,
    }


def _bundle(
    folder: Path, net: PathNet, paths: Mapping[str, Paths], statistics: BatchNormStatistics | None = None
) -> Bundle:
    try:
        return Bundle.open(folder)
    except ValueError:  # the bundle is missing or incomplete
        shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    return write_bundle(net.cpu(), folder, paths, statistics=statistics)
