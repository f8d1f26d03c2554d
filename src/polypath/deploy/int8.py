"""Decides which paths a bundle has in int8. Paths are quantised, scored on held-out images in each runtime, and timed.

A path in int8 is a separate path, ``PATH@int8``. If quantisation loses more accuracy than allowed, or if the runtimes
do not agree, the path stays in float32. The answers of an int8 path depend on the processor's instructions, so its
errors are recorded together with the kind of instructions (:func:`polypath.profiling.instructions.instructions`).
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from polypath.core.checks import check, number, one_of
from polypath.core.extract import extract_estimated
from polypath.deploy import check as checks
from polypath.deploy import heldout, latency_profile, onnx_graph
from polypath.deploy.candidates import BundleNetwork, Candidate
from polypath.deploy.graph_check import IMAGES, LOGITS, Value, check_graph
from polypath.deploy.needs import check_installed, checkers
from polypath.deploy.onnx_files import opened
from polypath.deploy.quantise import quantised
from polypath.deploy.runtimes.torch_ import folded
from polypath.deploy.scoring import Answerer, Scores, answered
from polypath.profiling.instructions import instructions

INT8 = "@int8"
"""The ending of an int8 path's name."""
AGREEMENT = 0.98
"""The smallest allowed share of held-out images for which ONNX Runtime and OpenVINO predict the same class."""
SECONDS = 0.3  # measuring time of each graph
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precisions:
    """The precisions that a bundle should have.

    Args:
        kind: ``float32``, ``int8`` or ``mixed``. With ``int8``, each path is in int8 if its error stays within
            ``max_drop``, otherwise in float32. ``mixed`` keeps the float32 paths. It adds an int8 path if no other path
            is both as fast and as accurate on this machine.
        max_drop: largest allowed rise of a path's held-out error, in percentage points.
    """

    kind: Literal["float32", "int8", "mixed"] = "float32"
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        check("precision", self.kind, one_of("float32", "int8", "mixed"))
        object.__setattr__(self, "max_drop", float(check("max_drop", self.max_drop, number(0, 100))))

    def check(self, networks: Mapping[str, BundleNetwork]) -> None:
        """Check, before any work, that the needed images and packages are available.

        Raises:
            ValueError: a network has no training or no held-out images.
            ImportError: NNCF is missing.
        """
        if self.kind == "float32":
            return
        check_installed("int8")
        for name, one in networks.items():
            told = f"network {name!r}: " if name else ""
            if one.calibration is None:
                raise ValueError(f"{told}precision {self.kind!r} needs training images for calibration: export a run")
            if one.held_out is None:
                raise ValueError(f"{told}precision {self.kind!r} needs held-out images (data.validation)")


def calibrated(networks: Mapping[str, BundleNetwork], precisions: Precisions) -> dict[str, Any]:
    """Return facts about the int8 paths for the manifest."""
    records = {name: one.calibration.record for name, one in networks.items() if one.calibration is not None}
    facts = {"instructions": instructions(), "max_drop": precisions.max_drop, "runtimes": checkers()}
    return {"int8": facts | {"calibration": records if any(records) else records[""]}}


@dataclass(frozen=True)
class Int8Path:
    """A path in int8.

    Attributes:
        candidate: the path.
        graph: the bytes of its ONNX file.
        answer: function that runs the path in the installed runtime with the highest held-out error.
        logits: the path's logits for the held-out images in that runtime.
        checks: rows for the manifest, one for each runtime.
    """

    candidate: Candidate
    graph: bytes
    answer: Answerer
    logits: torch.Tensor
    checks: list[dict[str, Any]]


def int8_paths(
    networks: Mapping[str, BundleNetwork],
    kept: Mapping[str, Candidate],
    scores: Scores,
    precisions: Precisions,
    folder: Path,
) -> dict[str, Int8Path]:
    """Quantise the paths in ``kept``, and return the bundle's int8 paths by the names of their float32 paths.

    Args:
        scores: the float32 paths' answers to held-out images.
        folder: folder for temporary files.

    Raises:
        ValueError: a graph cannot be quantised, or no runtime can load it.
    """
    choose = heldout.parts(len(scores.labels), scores.seed)["choose"]
    errors = {n: heldout.error(scores.logits[n][choose], scores.labels[choose]) for n in kept}
    found: dict[str, Int8Path] = {}
    for i, (n, candidate) in enumerate(kept.items()):
        plain, whole = folder / f"{i}.onnx", folder / f"{i}.int8.onnx"
        _write(networks[candidate.network], candidate, plain, whole)
        made = _scored(networks[candidate.network], candidate, n, whole, scores, choose)
        if made is None:
            continue
        error = heldout.error(made.logits[choose], scores.labels[choose])
        LOG.info("%s: held-out error %.2f%% in int8, %.2f%% in float32", n, error, errors[n])
        if error > errors[n] + precisions.max_drop + 1e-9:
            LOG.info("%s stays in float32: int8 loses more than %g points", n, precisions.max_drop)
            continue
        found[n], errors[n + INT8] = made, error
    if precisions.kind == "int8" or not found:
        return found
    worth = _front(networks, kept, errors, folder)
    for n in [n for n in found if n + INT8 not in worth]:
        LOG.info("%s stays in float32 only: another path is as accurate and takes no longer", n)
        del found[n]
    return found


def _write(one: BundleNetwork, candidate: Candidate, plain: Path, whole: Path) -> None:
    """Write a path's complete graph with folded norms, in float32 and in int8."""
    import onnx_ir as ir

    assert one.calibration is not None, "Precisions.check has asked"
    child = extract_estimated(one.net, candidate.paths, one.statistics).cpu()
    prep = one.preparation
    program = onnx_graph.exported(folded(child), checks.images(2, (prep.channels, *prep.size)))
    model = ir.to_proto(onnx_graph.to_onnx(program, fold=True, name=candidate.name))
    plain.write_bytes(model.SerializeToString())
    whole.write_bytes(quantised(model, one.calibration).SerializeToString())
    shape = (prep.channels, *prep.size)
    check_graph(whole, (), [Value(IMAGES, shape)], [Value(LOGITS, (one.net.num_classes,))])


def _scored(
    one: BundleNetwork, candidate: Candidate, name: str, file: Path, scores: Scores, choose: torch.Tensor
) -> Int8Path | None:
    """Score a path's int8 graph. Return None if the runtimes do not agree."""
    assert one.held_out is not None, "Precisions.check has asked"
    runs = _answerers(file)
    logits, _ = answered(runs, one.held_out.choose)
    rows, best = [], {runtime: z.argmax(1) for runtime, z in logits.items()}
    for runtime, z in logits.items():
        same = float((best[runtime] == scores.logits[name].argmax(1)).double().mean())
        off = float((z - scores.logits[name]).abs().max())
        rows.append({"path": name + INT8, "runtime": runtime, "max_abs": off, "agreement": round(same, 4)})
    first, *others = best.values()
    agreement = min((float((first == other).double().mean()) for other in others), default=1.0)
    if agreement < AGREEMENT:
        LOG.info("%s stays in float32: the runtimes agree on only %.1f%% of int8 answers", name, 100 * agreement)
        return None
    worst = max(logits, key=lambda runtime: heldout.error(logits[runtime][choose], scores.labels[choose]))
    return Int8Path(
        candidate=replace(candidate, name=candidate.name + INT8, precision="int8"),
        graph=file.read_bytes(),
        answer=runs[worst],
        logits=logits[worst],
        checks=rows,
    )


def _answerers(file: Path, batch: int | None = None) -> dict[str, Answerer]:
    """Load a graph in each installed runtime that supports it, for any batch size or for ``batch``."""
    runs: dict[str, Answerer] = {}
    refused: list[ValueError] = []
    for runtime in checkers():
        try:
            runs[runtime] = _answerer(runtime, file, batch)
        except ValueError as error:
            refused.append(error)
    if not runs:
        raise refused[0]
    for error in refused:
        LOG.warning("%s; other runtimes can load it", error)
    return runs


def _answerer(runtime: str, file: Path, batch: int | None) -> Answerer:
    run = opened(runtime, file, batch)
    return lambda images: torch.from_numpy(np.asarray(run(images.contiguous().numpy())[0]))


def _front(
    networks: Mapping[str, BundleNetwork], kept: Mapping[str, Candidate], errors: Mapping[str, float], folder: Path
) -> set[str]:
    """Return the front of error and time among each network's float32 and int8 paths. Times are measured on this
    machine for one image, in the faster runtime."""
    files = {n: folder / f"{i}.onnx" for i, n in enumerate(kept)}
    files |= {n + INT8: folder / f"{i}.int8.onnx" for i, n in enumerate(kept) if n + INT8 in errors}
    prep = next(iter(networks.values())).preparation
    x = checks.images(1, (prep.channels, *prep.size))
    ms: dict[str, float] = {}
    runs = {n: _answerers(file, 1) for n, file in files.items()}
    for runtime in checkers():
        tasks = {n: partial(own[runtime], x) for n, own in runs.items() if runtime in own}
        times = latency_profile.measure(tasks, SECONDS)
        for n, took in times.items():
            ms[n] = min(ms.get(n, float("inf")), statistics.median(took))
    LOG.info("timed %d graphs, one image at a time, with %s instructions", len(files), instructions())
    front: set[str] = set()
    for network in networks:
        own = [n for n in files if kept[n.removesuffix(INT8)].network == network]
        front.update(heldout.pareto({n: errors[n] for n in own}, ms))
    return front
