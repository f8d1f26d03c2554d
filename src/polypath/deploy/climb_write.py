"""Writes a graph for each step of a ladder that shares enough computation with earlier steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.wiring import INPUT
from polypath.deploy import check, onnx_graph
from polypath.deploy.climb import part_of, parts_by_step
from polypath.deploy.climber import Climb
from polypath.deploy.graph_check import LOGITS
from polypath.deploy.images import Preparation
from polypath.deploy.manifest import Rung, Step, folder_of
from polypath.deploy.needs import checkers
from polypath.deploy.onnx_files import opened, weights_at

LOG = logging.getLogger(__name__)


def write_steps(
    nets: Mapping[str, tuple[PathNet, BatchNormStatistics | None]],
    paths: Sequence[tuple[str, Paths] | None],
    rungs: Sequence[Rung],
    folder: Path,
    prep: Preparation,
) -> tuple[list[Rung], list[dict[str, Any]]]:
    """Write a graph for each rung that shares enough computation with earlier rungs (see
    :data:`~polypath.deploy.climb.LEAST`). Return the rungs with their steps, and the largest
    difference between each step's outputs and those of its extracted path in eager PyTorch.

    Args:
        nets: the networks by name, each with the recalibrated statistics that are stored in its folder.
        paths: the path of each rung with its network's name; None for a rung that runs its complete path.
    """
    shape = (prep.channels, *prep.size)
    found = parts_by_step(nets, paths, prep.size)
    values = {INPUT: check.images(2, shape)}
    steps: list[Step | None] = []
    for i, one in enumerate(found):
        path = paths[i]
        if one is None or path is None:
            steps.append(None)
            continue
        step, child, part = one
        module, inputs = part_of(child, part), [values[slot] for slot in step.reads]
        with torch.no_grad():
            out = module(*inputs)
        values |= dict(zip(step.leaves, out[1:], strict=True)) if step.leaves else {}
        network, own = path
        bank, place = nets[network][1], folder / network
        file = f"step-{i + 1}.onnx"
        program = onnx_graph.exported_many(module, inputs)
        model = onnx_graph.to_onnx(program, fold=False, name=f"step-{i + 1}", outputs=(LOGITS, *step.leaves))
        norms = list(bank).index(own) if bank is not None and own in bank else None
        known = {f"net.{name}": where for name, where in weights_at(place, norms).items()}
        onnx_graph.point_at(model, known, place)
        onnx_graph.write(model, place / file)
        steps.append(replace(step, files={"onnx": folder_of(network) + file}))
    checks = []
    for runtime in checkers() if any(steps) else ():
        try:
            runs = [opened(runtime, folder / step.files["onnx"]) if step is not None else None for step in steps]
        except ValueError as error:
            LOG.warning("%s; other runtimes can load it", error)
            continue
        for i, one in enumerate(found):
            if one is not None:
                name = f"step-{i + 1}.onnx"
                done = check.compare(runtime, partial(_climbed, steps, runs, i), one[1], shape, name)
                LOG.info("step %d, %s: %s", i + 1, rungs[i].path, done)
                checks.append({"step": i + 1, "runtime": done.runtime, "max_abs": done.max_abs})
    return [replace(rung, step=step) for rung, step in zip(rungs, steps, strict=True)], checks


def _climbed(steps: Sequence[Step | None], runs: Sequence[Callable[..., Any] | None], last: int, x: Any) -> Any:
    """Run the steps that have a graph, up to step ``last``, and return the output of that step."""
    climb, logits = Climb(steps, x), x
    for i, (step, run) in enumerate(zip(steps[: last + 1], runs, strict=False)):
        if step is not None and run is not None:
            logits, *left = run(*climb.inputs(step))
            climb.leave(i, left)
    return logits
