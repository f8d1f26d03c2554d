"""Measures the times of some paths in a bundle's runtime, and predicts the times of all paths with a linear model.

The model has a constant and three features for each feature-map size. They count a path's multiply-adds, its layers
with multiply-adds, and the elements that all other nodes, such as joins, process. The model is fitted by least squares
of relative errors. Its coefficients are not negative, so that more work is never faster. It is tested on paths to which
it was not fitted.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from polypath.core.execute import Trace, run_steps
from polypath.core.inputs import image_batch
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.quiet import quiet_loggers
from polypath.core.wiring import INPUT, Unit
from polypath.deploy import check
from polypath.deploy.bundle import Bundle
from polypath.deploy.images import preparation
from polypath.deploy.latency import Timing, disturbed
from polypath.deploy.latency_profile import machine, measure
from polypath.deploy.manifest import BundlePath, Manifest
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.write import write_bundle
from polypath.profiling.cores import cores
from polypath.profiling.cost import PathMacs

HELD_BACK = 5  # every fifth of the timed paths is held back for the test
Features = dict[str, float]


class Work:
    """A callable that returns the features of a path for the model of times.

    Args:
        counted: counts the multiply-adds of the network's paths.
        size: height and width of the images.
    """

    def __init__(self, counted: PathMacs, size: tuple[int, int]) -> None:
        self._counted, self._size = counted, size
        self._shapes: dict[str, torch.Size] = {}

    def __call__(self, choice: Paths) -> Features:
        nodes = self._counted.net.wiring.prune(choice).nodes
        macs = self._counted.by_node(choice, self._size)
        if any(node.name not in self._shapes for node in nodes):
            self._shapes |= self._measured(choice)
        found: Features = {"paths": 1.0}

        def add(what: str, place: str, count: float) -> None:
            found[f"{what} at {place}"] = found.get(f"{what} at {place}", 0.0) + count

        for node in nodes:
            shape = self._shapes[node.name]
            place = "x".join(map(str, shape[2:])) or "1x1"
            if macs.get(node.name):
                add("MACs", place, macs[node.name])
                add("layers", place, 1)
            else:
                operands = 1 if isinstance(node, Unit) else len(node.operands)
                add("elements", place, operands * shape.numel())
        return found

    def _measured(self, choice: Paths) -> dict[str, torch.Size]:
        net = self._counted.net
        x, trace = image_batch(net, self._size), Trace(frozenset(node.name for node in net.wiring.nodes))
        with torch.no_grad():
            run_steps(net, net.plan(choice), {INPUT: x}, gates="all", trace=trace)
        return {name: value.shape for name, value in trace.values.items()}


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """A linear model that predicts a path's milliseconds from its features.

    Attributes:
        ms: milliseconds for one unit of each feature, by name.
        least: the lower limit of predictions, which is half the time of the fastest timed path.
        fitted, held_back: number of paths to which the model was fitted, and number of paths held back for the test.
        error, worst: mean and largest error of the predictions in percent, on the paths held back.
    """

    ms: dict[str, float]
    least: float
    fitted: int
    held_back: int
    error: float
    worst: float

    def __call__(self, work: Features) -> float:
        """Return the predicted milliseconds. A feature that no timed path has adds no time."""
        return max(self.least, sum(self.ms.get(name, 0.0) * count for name, count in work.items()))


def fitted(work: Sequence[Features], ms: Sequence[float]) -> LatencyModel:
    """Fit the model to timed paths. Every fifth path is held back to test the model.

    Raises:
        ValueError: there are fewer than two paths.
    """
    if len(ms) < 2:
        raise ValueError(f"number of timed paths = {len(ms)}: must be at least two to fit a model of times")
    names = list(dict.fromkeys(name for row in work for name in row))
    counts, times = np.array([[row.get(name, 0.0) for name in names] for row in work]), np.asarray(ms, float)
    back = np.arange(len(ms)) % HELD_BACK == min(HELD_BACK, len(ms)) - 1
    relative = counts[~back] / times[~back, None]
    scale = np.maximum(relative.max(0), np.finfo(float).tiny)  # MACs are millions, layers are few
    coefficients = nnls(relative / scale, np.ones(len(relative)))[0] / scale
    off = 100 * np.abs(counts[back] @ coefficients / times[back] - 1)
    return LatencyModel(
        ms=dict(zip(names, coefficients.tolist(), strict=True)),
        least=float(times.min()) / 2,
        fitted=int((~back).sum()),
        held_back=int(back.sum()),
        error=round(float(off.mean()), 3),
        worst=round(float(off.max()), 3),
    )


@dataclass(frozen=True, kw_only=True)
class Times:
    """Measured times of paths.

    Attributes:
        ms: median milliseconds for one image, by the path's text.
        runtime: the runtime's name, version and threads, the machine, and whether the machine was busy.
    """

    ms: dict[str, float]
    runtime: dict[str, Any]


def timed(runtime: str, net: PathNet, choices: Sequence[Paths]) -> Times:
    """Measure the times of paths in a runtime. The paths run alternately, as paths of a temporary bundle.

    Raises:
        ValueError: the network's config does not state how images are prepared.
        ImportError: the runtime, or a package that writes its graphs, is not installed.
    """
    net = copy.deepcopy(net).cpu()
    names = {f"path{i}": choice for i, choice in enumerate(dict.fromkeys(choices), 1)}
    with tempfile.TemporaryDirectory() as place:
        if runtime == "torch":
            bundle = _unwritten(net, names)
        else:
            with quiet_loggers("polypath.deploy.write", level=logging.WARNING):  # it logs a line for each graph
                bundle = write_bundle(net, Path(place) / "bundle", names)
        opened, prep = open_runtime(runtime, bundle), bundle.preparation
        x = check.images(1, (prep.channels, *prep.size)).numpy()
        runs = {name: opened.prepare(name, 1) for name in names}
        taken = measure({name: (lambda run=run: run(x)) for name, run in runs.items()})
    about = {"name": opened.name, "version": opened.version, "threads": cores(), "machine": machine()}
    return Times(
        ms={str(names[name]): round(Timing.of(ms).p50, 5) for name, ms in taken.items()},
        runtime={**about, "busy": any(map(disturbed, taken.values()))},
    )


def _unwritten(net: PathNet, names: Mapping[str, Paths]) -> Bundle:
    """Return a bundle that exists only in memory. Only the runtime torch can run such a bundle."""
    paths = (BundlePath(name=name, text=str(choice), macs=0, params=0, depth=(0, 0)) for name, choice in names.items())
    prep = preparation(net.config)
    family = str(net.config.get("family", ""))
    manifest = Manifest(name="search", family=family, classes=net.class_names, preparation=prep, paths=tuple(paths))
    return Bundle(Path(), manifest, "", net)
