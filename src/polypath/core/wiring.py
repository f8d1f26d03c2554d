"""The wiring diagram: nodes, how they are joined, and exact counts of the paths through them.

A :class:`Wiring` is a frozen directed acyclic graph in topological order. A node is the input, a
:class:`Unit` (one operand and a module's path) or a :class:`Join` (several operands). This module does not
use tensors. A *choice* tells which operands of joins are alive. Here a choice is any mapping from join
names to operand labels; :class:`polypath.Paths` is the validated form for users.
The node classes are defined in :mod:`polypath.core.nodes` and can be imported from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

from polypath.core.deprecation import with_old_methods
from polypath.core.display import short_count
from polypath.core.nodes import (
    INPUT,
    JOIN_KINDS,
    WHOLE,
    Choice,
    Gate,
    Join,
    Node,
    Operand,
    Unit,
    check_join,
)
from polypath.core.wiring_svg import wiring_svg

__all__ = [
    "INPUT",
    "JOIN_KINDS",
    "WHOLE",
    "Choice",
    "Gate",
    "Join",
    "Node",
    "Operand",
    "Operands",
    "Route",
    "Unit",
    "Wiring",
]

MOST_DRAWN = 500  # the most nodes that a notebook draws: about 150 kB of SVG in a tenth of a second
_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
Operands = Callable[[Join], tuple[Operand, ...]]
"""A function that returns the operands of a join that a search through the diagram follows."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path from input to output: the nodes on the path, the operand taken at each join, and the path's depth."""

    nodes: tuple[str, ...]
    taken: tuple[tuple[str, str], ...]
    depth: int


@with_old_methods
@dataclass(frozen=True)
class Wiring:
    """A frozen diagram of nodes in topological order. ``output`` is the node whose value the network returns.

    Raises:
        ValueError: a duplicate name, a source that is not an earlier node, an unknown join kind, a join without
            operands or with duplicate labels, a module path that is a prefix of another, a node that the output
            does not need.
    """

    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        seen = {INPUT}
        for node in self.nodes:
            if not _NAME.fullmatch(node.name) or node.name == INPUT:
                raise ValueError(f"node name = {node.name!r}: must be a dotted identifier other than 'input'")
            if node.name in seen:
                raise ValueError(f"node {node.name!r} appears twice in the wiring")
            if isinstance(node, Join):
                check_join(node)
            for source in (*node.sources, *(g.source for g in getattr(node, "gates", ()))):
                if source not in seen:
                    raise ValueError(f"node {node.name!r} reads {source!r}, but no earlier node has that name")
            seen.add(node.name)
        if self.output not in seen:
            raise ValueError(f"output {self.output!r} is not a node of the wiring")
        _check_prefixes(self.modules)
        needed = self._reach(lambda join: join.operands, gates=True)
        if idle := [n.name for n in self.nodes if n.name not in needed]:
            raise ValueError(f"node {idle[0]!r} does not lead to the output {self.output!r}")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.nodes, self.output))

    def __repr__(self) -> str:
        return f"Wiring({len(self.nodes)} nodes, {len(self.joins)} joins, {short_count(self.count_paths())} paths)"

    def _repr_svg_(self) -> str | None:
        return self.to_svg() if len(self.nodes) <= MOST_DRAWN else None

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def joins(self) -> dict[str, Join]:
        return {node.name: node for node in self.nodes if isinstance(node, Join)}

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The paths of all modules, including gates, in order of first use and without duplicates."""
        return _modules(self.nodes)

    @cached_property
    def variants(self) -> dict[str, frozenset[str]]:
        """The variants that nodes use, by module path; modules without variants are left out."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, Unit) and node.variant is not None:
                found.setdefault(node.module, set()).add(node.variant)
        return {path: frozenset(names) for path, names in found.items()}

    def modules_before(self, ends: Collection[str]) -> tuple[str, ...]:
        """List the paths of the modules, including gates, that any choice may need to compute the nodes ``ends``."""
        needed = self._reach(lambda join: join.operands, gates=True, ends=ends)
        return _modules(node for node in self.nodes if node.name in needed)

    # --- what is alive -----------------------------------------------------------------------------------

    def alive(self, choice: Choice = WHOLE, ends: Collection[str] = ()) -> tuple[Node, ...]:
        """List the nodes that are needed under ``choice`` for the output, or for ``ends``, in topological order."""
        needed = self._reach(lambda join: join.chosen(choice), gates=True, choice=choice, ends=ends)
        return tuple(node for node in self.nodes if node.name in needed)

    def reachable(self, choice: Choice | None = None) -> frozenset[str]:
        """Return the names of the nodes that are on some path; for ``choice`` see :meth:`depth_distribution`."""
        return frozenset(self._reach(lambda join: _open(join, choice)))

    def _reach(
        self, operands: Operands, *, gates: bool = False, choice: Choice = WHOLE, ends: Collection[str] = ()
    ) -> set[str]:
        needed: set[str] = set()
        todo = [*ends] or [self.output]
        while todo:
            name = todo.pop()
            if name in needed:
                continue
            needed.add(name)
            node = self.by_name.get(name)
            if isinstance(node, Unit):
                todo.append(node.source)
            elif node is not None:
                todo.extend(o.source for o in operands(node))
                if gates and node.dynamic(choice):
                    todo.extend(g.source for g in node.gates)
        return needed

    def collapsed(self, choice: Choice = WHOLE) -> dict[str, str]:
        """Return the joins that :meth:`prune` removes because one operand remains, and the nodes that replace them."""
        found: dict[str, str] = {}
        for node in self.alive(choice):
            if isinstance(node, Join) and not node.dynamic(choice):
                operand, *others = node.chosen(choice)
                if not others and (operand.survival == 1.0 or node.kind == "switch"):
                    found[node.name] = found.get(operand.source, operand.source)
        return found

    def prune(self, choice: Choice = WHOLE) -> Wiring:
        """Return the diagram of the alive nodes. Joins with one remaining operand are removed; labels are kept."""
        renamed = self.collapsed(choice)
        kept: list[Node] = []

        def now(name: str) -> str:
            return renamed.get(name, name)

        for node in self.alive(choice):
            if isinstance(node, Unit):
                kept.append(replace(node, source=now(node.source)))
                continue
            if node.name in renamed:
                continue
            operands = tuple(replace(o, source=now(o.source)) for o in node.chosen(choice))
            gates = tuple(replace(g, source=now(g.source)) for g in node.gates if node.dynamic(choice))
            kind = "sum" if node.kind == "switch" and not gates else node.kind
            kept.append(Join(node.name, kind, operands, gates))
        return Wiring(tuple(kept), now(self.output))

    # --- how many paths, how deep ------------------------------------------------------------------------

    def depth_distribution(self, choice: Choice | None = None) -> dict[int, int]:
        """Count the paths of each depth exactly, ``{depth: count}``, by dynamic programming over the diagram.

        Without a choice this counts all paths of the diagram, with a choice only the paths that run under the choice.
        With a choice, only one operand of a switch without gates counts, the chosen or default operand, as in
        ``prune(choice)``. Operands with the same source count separately.
        """
        at: dict[str, dict[int, int]] = {INPUT: {0: 1}}
        for node in self.nodes:
            if isinstance(node, Unit):
                at[node.name] = {d + node.depth: n for d, n in at[node.source].items()}
                continue
            total: dict[int, int] = {}
            for operand in _open(node, choice):
                for d, n in at[operand.source].items():
                    total[d] = total.get(d, 0) + n
            at[node.name] = total
        return dict(sorted(at[self.output].items()))

    def count_paths(self, choice: Choice | None = None) -> int:
        """Count the paths from input to output exactly, as an integer of any size; see :meth:`depth_distribution`."""
        at = {INPUT: 1}
        for node in self.nodes:
            sources = [node.source] if isinstance(node, Unit) else [o.source for o in _open(node, choice)]
            at[node.name] = sum(at[source] for source in sources)
        return at[self.output]

    def shortest(self, choice: Choice | None = None) -> int:
        """Return the depth of the shallowest path, in layers."""
        return min(self.depth_distribution(choice))

    def longest(self, choice: Choice | None = None) -> int:
        """Return the depth of the deepest path, in layers."""
        return max(self.depth_distribution(choice))

    def routes(self, choice: Choice | None = None) -> Iterator[Route]:
        """Yield every path, in a fixed order, without storing all of them."""
        stack: list[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...], int]]
        stack = [(self.output, (), (), 0)]
        while stack:
            name, nodes, taken, depth = stack.pop()
            if name == INPUT:
                yield Route((INPUT, *nodes), taken, depth)
                continue
            node, nodes = self.by_name[name], (name, *nodes)
            if isinstance(node, Unit):
                stack.append((node.source, nodes, taken, depth + node.depth))
                continue
            for operand in reversed(_open(node, choice)):
                stack.append((operand.source, nodes, ((name, operand.label), *taken), depth))

    # --- drawings ----------------------------------------------------------------------------------------

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """Convert the diagram to a ``networkx.MultiDiGraph``.

        Nodes have the attribute ``node``, and the edges of a join's operands the attribute ``label``.
        """
        import networkx as nx

        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(output=self.output)
        graph.add_node(INPUT, node=None)
        for node in self.nodes:
            graph.add_node(node.name, node=node)
            if isinstance(node, Unit):
                graph.add_edge(node.source, node.name)
            else:
                for operand in node.operands:
                    graph.add_edge(operand.source, node.name, label=operand.label)
        return graph

    def to_svg(self, choice: Choice | None = None, *, columns: int = 30, title: str | None = None) -> str:
        """Draw the diagram as one ``<svg>`` element; see :func:`polypath.core.wiring_svg.wiring_svg`."""
        return wiring_svg(self, choice, columns=columns, title=title)

    def to_graphviz(self, choice: Choice | None = None) -> str:
        """Write the diagram as Graphviz source; nodes and operands that are dead under ``choice`` are grey."""
        alive = {INPUT, *(n.name for n in self.alive({} if choice is None else choice))}
        lines = [
            "digraph wiring {",
            "  rankdir=TB; node [fontname=Helvetica fontsize=10];",
            f'  "{INPUT}" [shape=oval];',
        ]

        def style(on: bool) -> str:
            return "" if choice is None or on else " color=grey80 fontcolor=grey70"

        for node in self.nodes:
            on = node.name in alive
            if isinstance(node, Unit):
                lines.append(f'  "{node.name}" [shape=box{style(on)}];')
                lines.append(f'  "{node.source}" -> "{node.name}" [{style(on)}];')
                continue
            lines.append(f'  "{node.name}" [shape=ellipse label="{node.name}\\n{node.kind}"{style(on)}];')
            chosen = node.chosen(choice or WHOLE)
            for operand in node.operands:
                edge = style(on and operand in chosen)
                lines.append(f'  "{operand.source}" -> "{node.name}" [label="{operand.label}"{edge}];')
        return "\n".join([*lines, "}"]) + "\n"


def _modules(nodes: Iterable[Node]) -> tuple[str, ...]:
    paths = (
        path
        for node in nodes
        for path in ([node.module] if isinstance(node, Unit) else [gate.module for gate in node.gates])
    )
    return tuple(dict.fromkeys(paths))


def _open(join: Join, choice: Choice | None) -> tuple[Operand, ...]:
    """Return the operands that run under ``choice``, or without a choice all operands."""
    return join.operands if choice is None else join.chosen(choice)


def _check_prefixes(paths: tuple[str, ...]) -> None:
    known = set(paths)
    for path in paths:
        parts = path.split(".")
        for i in range(1, len(parts)):
            if (prefix := ".".join(parts[:i])) in known:
                raise ValueError(f"module path {prefix!r} is a prefix of {path!r}: no module may contain another")
