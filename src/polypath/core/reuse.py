"""Run paths one after the other; each path reuses values that earlier paths computed.

    for logits in in_turn(net, x, ["exit=1", "exit=2", "whole"]): ...

Two units have the same value if they run the same module, with the same norms, on the same values. Two joins have the
same value if they join the same values in the same way. Such nodes are found by value numbering, as compilers find
common subexpressions. Paths may share a prefix, a column that ends in a join, or a complete loop. They do not share
values that depend on a different choice or on other batch-norm statistics.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polypath.core.batchnorm import Bank, BatchNormStatistics, applied
from polypath.core.execute import run_steps
from polypath.core.paths import Paths
from polypath.core.plan import Step, between, make_plan
from polypath.core.wiring import INPUT, Unit, Wiring

if TYPE_CHECKING:
    from polypath.core.network import PathNet

Version = Callable[[str, str | None], Hashable]
"""A function from a module's path and variant to a key. Equal keys mean that the module computes the same function."""
Worth = Callable[[int, Collection[str]], bool]
"""A function that decides whether a network should read values of earlier networks.

The arguments are the network's number and the nodes that the network would then skip.
"""


@dataclass(frozen=True)
class Increment:
    """An increment of computation: the steps that a network still has to run after earlier networks have run.

    Attributes:
        steps: the steps to run.
        reads: nodes whose values exist already, each with the slot that contains the value. Slot ``input`` contains the
            images.
        leaves: nodes whose values later increments read, each with the slot for the value.
        output: the node whose value is the network's output.
    """

    steps: tuple[Step, ...]
    reads: tuple[tuple[str, str], ...]
    leaves: tuple[tuple[str, str], ...]
    output: str

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that run, including nodes inside loops."""
        inner = (name for step in self.steps for loop in step.loops for name in loop.nodes)
        return frozenset((*(step.node.name for step in self.steps), *inner))


def increments(
    wirings: Sequence[Wiring], versions: Sequence[Version] = (), worth: Worth | None = None
) -> tuple[Increment, ...]:
    """Find the steps that each of several networks still has to run after the earlier networks.

    Args:
        wirings: the networks' diagrams, without open choices (:meth:`Wiring.prune`). They refer to the same modules.
        versions: one :data:`Version` per network; needed only if the networks' modules compute different functions.
        worth: see :data:`Worth`; by default every value is reused.
    """
    if not wirings:
        return ()
    plans = [make_plan(wiring, Paths()) for wiring in wirings]
    table: dict[Hashable, int] = {}
    told = versions or [same_modules] * len(plans)
    numbers = [numbered(plan, version, table) for plan, version in zip(plans, told, strict=True)]
    made: dict[int, tuple[int, str]] = {}  # for each value: the first network that computes it, and the node
    found: list[tuple[tuple[Step, ...], dict[str, int]]] = []
    for k, (wiring, plan, values) in enumerate(zip(wirings, plans, numbers, strict=True)):
        every = [step.node.name for step in plan]
        known = [name for name in every if values[name] in made]
        steps = between(plan, (INPUT, *known), (wiring.output,))
        if skipped := frozenset(every) - {step.node.name for step in steps}:
            inner = (name for step in plan if step.node.name in skipped for loop in step.loops for name in loop.nodes)
            if worth is not None and not worth(k, skipped.union(inner)):
                known, steps = [], plan
        own = {step.node.name for step in steps}
        read = dict.fromkeys(source for step in steps for source in step.sources if source not in own)
        read |= {} if wiring.output in own else {wiring.output: None}
        found.append((steps, {name: values[name] for name in read}))
        for name in every:
            if name in own:
                made.setdefault(values[name], (k, name))
    slots = {value: f"{node}@{k + 1}" for value, (k, node) in made.items()} | {table[INPUT]: INPUT}
    wanted = {value for _, reads in found for value in reads.values() if value != table[INPUT]}
    parts: list[Increment] = []
    for k, (wiring, plan, (_, reads)) in enumerate(zip(wirings, plans, found, strict=True)):
        leaves = [made[value][1] for value in sorted(wanted) if made[value][0] == k]
        parts.append(
            Increment(
                between(plan, reads, (wiring.output, *leaves)),
                tuple((name, slots[value]) for name, value in reads.items()),
                tuple((name, slots[numbers[k][name]]) for name in leaves),
                wiring.output,
            )
        )
    return tuple(parts)


def parts_of(
    net: PathNet,
    choices: Iterable[Paths | str | None],
    stats: BatchNormStatistics | None = None,
    worth: Worth | None = None,
) -> list[tuple[Paths, Increment]]:
    """Return the choices in order, each with the steps that still have to run after the earlier choices.

    Args:
        stats: recalibrated statistics, used for each choice that they contain.
        worth: see :data:`Worth`; by default every value is reused.

    Raises:
        ValueError: an illegal choice.
    """
    paths = [net.paths(choice) for choice in choices]
    banks = [stats[p] if stats is not None and p in stats else None for p in paths]
    found = increments([net.wiring.prune(p) for p in paths], [version_of(net.wiring, bank) for bank in banks], worth)
    return list(zip(paths, found, strict=True))


def in_turn(
    net: PathNet,
    x: Tensor,
    choices: Iterable[Paths | str | None] = (),
    *,
    stats: BatchNormStatistics | None = None,
    parts: Sequence[tuple[Paths, Increment]] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the logits ``(N, classes)`` of each choice in order.

    In evaluation, the logits are bit-identical to ``net(x, paths=choice)``. In training, nodes that choices share run
    only once, so their dropout and gates draw once, and their norms see the batch once.

    Args:
        choices: see :meth:`PathNet.paths`.
        stats: recalibrated statistics, used for each choice that they contain.
        parts: the result of :func:`parts_of`, instead of ``choices``.
        generator: random source of sampled gates in training.

    Raises:
        ValueError: images on which the network cannot run, an illegal choice.
    """
    net.check_images(x)
    held = {INPUT: x}
    for paths, part in parts_of(net, choices, stats) if parts is None else parts:
        values = {node: held[slot] for node, slot in part.reads}
        lent = stats is not None and paths in stats
        with applied(net, stats[paths]) if stats is not None and lent else nullcontext():
            values = run_steps(net, part.steps, values, generator=generator)
        held |= {slot: values[node] for node, slot in part.leaves}
        yield values[part.output]


def version_of(wiring: Wiring, bank: Bank | None) -> Version:
    """Make a :data:`Version` for a path with the statistics in ``bank``. Two paths have different keys for a module if
    their statistics of this module differ.

    If ``bank`` is None, the path runs with the network's own statistics.
    """
    if bank is None:
        return same_modules
    inside, known = norms_inside(wiring, bank), {name: _digest(tensors) for name, tensors in bank.items()}
    return lambda module, variant: tuple((name, known[name]) for name in inside(module, variant))


def norms_inside(wiring: Wiring, names: Iterable[str]) -> Callable[[str, str | None], tuple[str, ...]]:
    """Return a function from a module and a variant to the norms in ``names`` that run with this variant."""
    names = tuple(names)

    @functools.cache
    def inside(module: str, variant: str | None) -> tuple[str, ...]:
        others = wiring.variants.get(module, frozenset()) - {variant}
        own = (name for name in names if name == module or name.startswith(f"{module}."))
        return tuple(name for name in own if name.rpartition(".")[2] not in others)

    return inside


def modules_of(step: Step) -> list[tuple[str, str | None]]:
    """List the modules that a step runs, including the modules of loops and gates, each with its variant."""
    if isinstance(step.node, Unit):
        return [(step.node.module, step.node.variant)]
    inner = [s.node for loop in step.loops for s in loop.steps]
    units = [(node.module, node.variant) for node in inner if isinstance(node, Unit)]
    return units + [(loop.gate.module, None) for loop in step.loops if loop.gate]


def same_modules(module: str, variant: str | None) -> Hashable:
    """Return None. This is the :data:`Version` for networks whose modules compute the same functions."""
    return None


def _digest(tensors: Iterable[Tensor]) -> bytes:
    data = (t.detach().cpu().contiguous().numpy().tobytes() for t in tensors)
    return hashlib.sha256(b"".join(data)).digest()


def numbered(plan: Sequence[Step], version: Version, table: dict[Hashable, int]) -> Mapping[str, int]:
    """Number the value of each node. Equal numbers mean equal values in all plans that are numbered with ``table``.

    New values are numbered in the plan's order, the images first.
    """
    numbers = {INPUT: table.setdefault(INPUT, len(table))}
    for step in plan:
        node, sources = step.node, tuple(numbers[source] for source in step.sources)
        if isinstance(node, Unit):
            key: Hashable = (node.module, node.variant, version(node.module, node.variant), sources)
        elif step.loops:
            key = (node, step.loops, tuple(version(*module) for module in modules_of(step)), sources)
        else:
            key = (node.kind, step.scales, sources)
        numbers[node.name] = table.setdefault(key, len(table))
    return numbers
