"""Plans the steps of a bundle's ladder: each runs only the part of its path that earlier steps have not run.

Shared nodes are found in the wirings (:mod:`polypath.core.reuse`). A step gets its own graph if sharing saves at least
the fraction :data:`LEAST` of its path's MACs. Otherwise the step runs the graph of the complete path.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.extract import extract_estimated
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.plan import between
from polypath.core.reuse import Increment, parts_of
from polypath.core.wiring import INPUT
from polypath.deploy.manifest import Step
from polypath.deploy.stepwise_cut import Part
from polypath.profiling.cost import Size, macs_by_node, macs_of_nodes

LEAST = 0.1


def steps_of(
    net: PathNet, paths: Sequence[Paths], stats: BatchNormStatistics | None, size: Size
) -> list[tuple[Step, Increment] | None]:
    """Return for each path the part that earlier paths have not run, or None if the path shares too little with them.

    Args:
        stats: recalibrated batch-norm statistics for some or all of the paths.
        size: image size in pixels.
    """
    macs = [macs_by_node(net, p, size) for p in paths]

    def worth(k: int, skipped: Collection[str]) -> bool:
        return macs_of_nodes(macs[k], skipped) >= LEAST * sum(macs[k].values())

    steps: list[tuple[Step, Increment] | None] = []
    for counted, (_, part) in zip(macs, parts_of(net, paths, stats, worth), strict=True):
        reads, leaves = (tuple(slot for _, slot in pairs) for pairs in (part.reads, part.leaves))
        shares = leaves or any(slot != INPUT for slot in reads)
        step = Step(reads=reads, leaves=leaves, macs=macs_of_nodes(counted, part.nodes))
        steps.append((step, part) if shares and part.steps else None)
    return steps


def part_of(net: PathNet, part: Increment) -> Part:
    """Return an increment as a module. The module's inputs are the values that the increment reads. The outputs are the
    logits and the values that later increments read.

    Args:
        net: the extracted path (:func:`polypath.extract`), which may be fused with ``hold``.
    """
    inputs, leaves = (tuple(node for node, _ in pairs) for pairs in (part.reads, part.leaves))
    outputs = (part.output, *leaves)
    return Part(net, between(net.plan(None), inputs, outputs), inputs, outputs)


Made = tuple[Step, PathNet, Increment]


def parts_by_step(
    nets: Mapping[str, tuple[PathNet, BatchNormStatistics | None]],
    paths: Sequence[tuple[str, Paths] | None],
    size: Size,
) -> list[Made | None]:
    """Call :func:`steps_of` for the paths of each network, since a path shares only nodes of its own network.

    Each path is given with its network's name. Each step is returned with the extracted path, whose norms are
    recalibrated if ``nets`` has statistics for the path. The result is None for a path that shares too little.
    """
    found: list[Made | None] = [None] * len(paths)
    for name, (net, stats) in nets.items():
        own = {i: path[1] for i, path in enumerate(paths) if path is not None and path[0] == name}
        places, mine = list(own), list(own.values())
        for i, p, made in zip(places, mine, steps_of(net, mine, stats, size), strict=True):
            if made is not None:
                child = extract_estimated(net, p, stats)
                found[i] = _of(name, made[0]), child, made[1]
    return found


def _of(network: str, step: Step) -> Step:
    """Return the step with the network's name before each slot name, so that slots of different networks differ."""
    reads, leaves = (
        tuple(slot if slot == INPUT or not network else f"{network}:{slot}" for slot in slots)
        for slots in (step.reads, step.leaves)
    )
    return replace(step, reads=reads, leaves=leaves)
