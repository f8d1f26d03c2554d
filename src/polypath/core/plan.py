"""The plan of a choice: which nodes run, in which order, and when tensors are freed. This module does not use torch.

If the gates of a switch decide, the nodes inside its loops are not separate steps of the plan. Instead, the switch's
step contains a :class:`Loop` for each loop, because the gates decide at run time which samples run the loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from polypath.core.paths import Paths
from polypath.core.wiring import WHOLE, Choice, Gate, Join, Node, Operands, Unit, Wiring


@dataclass(frozen=True)
class Loop:
    """A loop of a gated switch: the nodes that run between one operand and the next.

    Attributes:
        label: label of the operand at the loop's end.
        begin, end: source nodes of the two operands.
        gate: the gate that decides which samples run the loop; None if all samples do.
        nodes: the nodes in between, including ``end``, in topological order.
        outside: the nodes outside all loops, other than ``begin``, that the loop and its gate read. ``end`` is included
            if it is such a node.
        steps: the plan of ``nodes``.
    """

    label: str
    begin: str
    end: str
    gate: Gate | None
    nodes: tuple[str, ...]
    outside: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Step:
    """A step of a plan: a node, its inputs, the factors for the inputs of a sum, and the tensors to free afterwards."""

    node: Node
    sources: tuple[str, ...]
    scales: tuple[float, ...]
    free: tuple[str, ...]
    loops: tuple[Loop, ...] = ()  # only for a switch whose gates decide


def make_plan(wiring: Wiring, paths: Paths, ends: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """Make the steps that run under a canonical choice; each step frees the tensors that no later step reads.

    With ``ends``, the plan has only the steps that these nodes need, and does not free their values. The ends must be
    outside the loops of gated switches.
    """
    alive = wiring.alive(paths, ends)
    loops = {n.name: loops_of(wiring, n, paths) for n in alive if isinstance(n, Join) and n.dynamic(paths)}
    inside = {name for switch in loops.values() for loop in switch for name in loop.nodes}
    return _steps(wiring, [node for node in alive if node.name not in inside], paths, loops, kept=ends)


def _steps(
    wiring: Wiring,
    nodes: Sequence[Node],
    paths: Paths,
    loops: Mapping[str, tuple[Loop, ...]],
    kept: Sequence[str] = (),
) -> tuple[Step, ...]:
    rows: list[tuple[Node, tuple[str, ...], tuple[float, ...], tuple[Loop, ...]]] = []
    for node in nodes:
        if isinstance(node, Unit):
            rows.append((node, (node.source,), (), ()))
        elif node.name in loops:
            planned = tuple(
                replace(loop, steps=_steps(wiring, [wiring.by_name[name] for name in loop.nodes], paths, {}))
                for loop in loops[node.name]
            )
            outside = (name for loop in planned for name in loop.outside)
            rows.append((node, tuple(dict.fromkeys((planned[0].begin, *outside))), (), planned))
        else:
            chosen = node.chosen(paths)
            scales = (1.0,) * len(chosen) if node.kind == "switch" else tuple(o.survival for o in chosen)
            rows.append((node, tuple(o.source for o in chosen), scales, ()))
    last_reader = {source: i for i, (_, sources, _, _) in enumerate(rows) for source in sources}
    free: dict[int, list[str]] = {}
    for source, i in last_reader.items():
        if source not in kept:
            free.setdefault(i, []).append(source)
    return tuple(
        Step(node, sources, scales, tuple(free.get(i, ())), planned)
        for i, (node, sources, scales, planned) in enumerate(rows)
    )


def between(steps: Sequence[Step], given: Collection[str], ends: Collection[str]) -> tuple[Step, ...]:
    """Return the steps of a plan that compute ``ends`` from the values of ``given``; the ends are not freed."""
    by_name = {step.node.name: step for step in steps}
    needed: set[str] = set()
    todo = [name for name in ends if name not in given]
    while todo:
        name = todo.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            todo += [source for source in by_name[name].sources if source not in given]
    kept = [step for step in steps if step.node.name in needed]
    last = {source: i for i, step in enumerate(kept) for source in step.sources if source not in ends}
    return tuple(
        replace(step, free=tuple(source for source in dict.fromkeys(step.sources) if last.get(source) == i))
        for i, step in enumerate(kept)
    )


def loops_of(wiring: Wiring, join: Join, choice: Choice = WHOLE) -> tuple[Loop, ...]:
    """List the loops of a gated switch under ``choice``, in order."""
    return _loops(wiring, join, lambda node: node.chosen(choice))


def check_gates(wiring: Wiring) -> None:
    """Check that every gated switch can be run loop by loop.

    Raises:
        ValueError: a loop that reads a node inside an earlier loop, a gate that reads a node inside its own loop, a
            node outside the loops that reads a node inside, two gates before one loop, nested gated switches.
    """
    for join in wiring.joins.values():
        if join.gates:
            _check(wiring, join)


def _loops(wiring: Wiring, join: Join, operands: Operands) -> tuple[Loop, ...]:
    gates = {gate.opens: gate for gate in join.gates}
    behind = _before(wiring, join.operands[0].source, operands, set())
    found: list[Loop] = []
    for previous, operand in pairwise(join.operands):
        inside = _before(wiring, operand.source, operands, behind)
        behind |= inside
        nodes = [node for node in wiring.nodes if node.name in inside]
        gate = gates.get(operand.label)
        read = [source for node in nodes for source in _sources(node, operands)] + ([gate.source] if gate else [])
        read.append(operand.source)  # a loop without nodes ends where it begins, or before the switch
        outside = dict.fromkeys(name for name in read if name not in inside and name != previous.source)
        names = tuple(node.name for node in nodes)
        found.append(Loop(operand.label, previous.source, operand.source, gate, names, tuple(outside)))
    return tuple(found)


def _before(wiring: Wiring, name: str, operands: Operands, known: set[str]) -> set[str]:
    """Return all nodes that ``name`` needs, including ``name`` itself. The search stops at the ``known`` nodes."""
    needed: set[str] = set()
    todo = [name]
    while todo:
        name = todo.pop()
        if name not in needed and name not in known:
            needed.add(name)
            if (node := wiring.by_name.get(name)) is not None:
                todo.extend(_sources(node, operands))
    return needed


def _sources(node: Node, operands: Operands) -> list[str]:
    if isinstance(node, Unit):
        return [node.source]
    return [o.source for o in operands(node)] + [g.source for g in node.gates]


def _check(wiring: Wiring, join: Join) -> None:
    opens = [gate.opens for gate in join.gates]
    if twice := [label for label in opens if opens.count(label) > 1]:
        raise ValueError(f"switch {join.name!r}: two gates open the same operand {twice[0]!r}")
    loops = _loops(wiring, join, lambda node: node.operands)
    inside: set[str] = set()
    for loop in loops:
        if alien := [name for name in loop.outside if name in inside]:
            raise ValueError(
                f"switch {join.name!r}: the loop to {loop.label!r} reads {alien[0]!r}, a node inside an earlier loop, "
                f"but it may read only {loop.begin!r} and nodes before the switch"
            )
        if loop.gate and loop.gate.source in loop.nodes:
            raise ValueError(
                f"switch {join.name!r}: the gate to {loop.label!r} reads {loop.gate.source!r}, "
                "which is inside this gate's loop"
            )
        inside.update(loop.nodes)
    for node in wiring.nodes:
        if node.name in inside:
            if isinstance(node, Join) and node.gates:
                raise ValueError(
                    f"switch {join.name!r}: {node.name!r} inside its loops has gates too, but gated switches cannot be "
                    "nested"
                )
        elif node is not join and (seen := inside.intersection(_sources(node, lambda n: n.operands))):
            raise ValueError(
                f"node {node.name!r} reads {min(seen)!r}, which is inside a loop of switch {join.name!r} "
                "and has no value for samples that did not run this loop"
            )
