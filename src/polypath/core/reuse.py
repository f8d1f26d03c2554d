"""Run paths one after the other; each reuses values that earlier ones computed.

    for logits in in_turn(net, x, ["exit=1", "exit=2", "whole"]): ...

Two nodes have the same value if they run the same module, with the same norms, on the same values, or join the same
values in the same way. This is value numbering, as compilers use it to find common subexpressions, so nothing has to be
declared. Paths share a prefix, a column that ends in a join, or a complete loop if it computes the same function. They
do not if an earlier choice or recalibrated batch-norm statistics change that function.
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
"""A key for a module's path and variant: equal for two networks in which this module is the same function."""
Worth = Callable[[int, Collection[str]], bool]
"""Whether the network with this number should read values of others, given the nodes that it then skips."""


@dataclass(frozen=True)
class Increment:
    """The steps that one of several networks runs in addition to the earlier ones.

    Attributes:
        steps: the steps to run.
        reads: nodes whose values exist already, each with the slot that holds it; images are in ``input``.
        leaves: nodes whose values later increments read, each with its slot.
        output: the node whose value is the answer.
    """

    steps: tuple[Step, ...]
    reads: tuple[tuple[str, str], ...]
    leaves: tuple[tuple[str, str], ...]
    output: str

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that run, including those inside loops."""
        inner = (name for step in self.steps for loop in step.loops for name in loop.nodes)
        return frozenset((*(step.node.name for step in self.steps), *inner))


def increments(
    wirings: Sequence[Wiring], versions: Sequence[Version] = (), worth: Worth | None = None
) -> tuple[Increment, ...]:
    """The steps that each of several networks still has to run after the earlier ones.

    Args:
        wirings: their diagrams, without open choices (:meth:`Wiring.prune`), over the same modules.
        versions: one per network, if their modules differ.
        worth: see :data:`Worth`; by default every value is reused.
    """
    if not wirings:
        return ()
    plans = [make_plan(wiring, Paths()) for wiring in wirings]
    table: dict[Hashable, int] = {}
    told = versions or [same_modules] * len(plans)
    numbers = [numbered(plan, version, table) for plan, version in zip(plans, told, strict=True)]
    made: dict[int, tuple[int, str]] = {}  # by value: the first network that computes it, and its node
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
    """The choices in order, each with the steps that it runs after the earlier ones.

    Args:
        stats: recalibrated statistics; choices that they contain run with them.
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
    """Logits ``(N, classes)`` of each choice in order; in evaluation bit-identical to ``net(x, paths=choice)``.

    In training, nodes that choices share run once, so they draw once and their norms see the batch once.

    Args:
        choices: see :meth:`PathNet.paths`.
        stats: recalibrated statistics; choices that they contain run with them.
        parts: instead of ``choices``, the result of :func:`parts_of`.
        generator: random source of sampled gates in training.

    Raises:
        ValueError: images that the network cannot take, an illegal choice.
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
    """A :data:`Version` by one path's statistics of the norms inside a module; None is the network's own statistics."""
    if bank is None:
        return same_modules
    inside, known = norms_inside(wiring, bank), {name: _digest(tensors) for name, tensors in bank.items()}
    return lambda module, variant: tuple((name, known[name]) for name in inside(module, variant))


def norms_inside(wiring: Wiring, names: Iterable[str]) -> Callable[[str, str | None], tuple[str, ...]]:
    """A function from a module and its variant to those norms, of ``names`` in the network, that it uses."""
    names = tuple(names)

    @functools.cache
    def inside(module: str, variant: str | None) -> tuple[str, ...]:
        others = wiring.variants.get(module, frozenset()) - {variant}
        own = (name for name in names if name == module or name.startswith(f"{module}."))
        return tuple(name for name in own if name.rpartition(".")[2] not in others)

    return inside


def modules_of(step: Step) -> list[tuple[str, str | None]]:
    """The modules that a step runs, including those of loops and gates, each with its variant."""
    if isinstance(step.node, Unit):
        return [(step.node.module, step.node.variant)]
    inner = [s.node for loop in step.loops for s in loop.steps]
    units = [(node.module, node.variant) for node in inner if isinstance(node, Unit)]
    return units + [(loop.gate.module, None) for loop in step.loops if loop.gate]


def same_modules(module: str, variant: str | None) -> Hashable:
    """The :data:`Version` of networks whose modules are the same functions."""
    return None


def _digest(tensors: Iterable[Tensor]) -> bytes:
    data = (t.detach().cpu().contiguous().numpy().tobytes() for t in tensors)
    return hashlib.sha256(b"".join(data)).digest()


def numbered(plan: Sequence[Step], version: Version, table: dict[Hashable, int]) -> Mapping[str, int]:
    """A number for the value of each node; equal numbers are equal values, in all plans that share the ``table``.

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
