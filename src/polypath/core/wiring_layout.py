"""Positions of a wiring's nodes in a drawing: a strip from left to right, broken into rows.

The longest chain is the *spine*, on lane 0. Every operand that is not on the spine is the end of a side chain. Side
chains have separate lanes above the spine; the shorter a chain, the nearer it is to the spine. So a CrescendoNet block
looks like stairs, and a fractal shows its columns. A place is a column (a real number) and a lane, not pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from polypath.core.nodes import INPUT, Choice, Join, Node

Point = tuple[float, float]
NEAR = 0.4  # half the width of a node, in columns
JOG = 0.6  # an edge rises this many columns after its source and falls as many before its end; rows break at 0.5


class Diagram(Protocol):
    """A diagram to draw: a :class:`polypath.Wiring`, which this module cannot import without an import cycle."""

    @property
    def nodes(self) -> tuple[Node, ...]: ...
    @property
    def output(self) -> str: ...
    def alive(self, choice: Choice = ..., /) -> tuple[Node, ...]: ...


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge from ``source`` to ``target``. If the target is a join, ``label`` is the operand's label. ``points`` are
    ``(column, lane)``, and the segments between them are alternately horizontal and vertical."""

    source: str
    target: str
    label: str | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing's layout: the places of all nodes (including ``input``), the edges, and the columns at which the strip
    breaks into rows. Row i goes from ``breaks[i]`` to ``breaks[i + 1]``."""

    places: dict[str, Point]
    edges: tuple[Edge, ...]
    breaks: tuple[float, ...]


@dataclass(slots=True)
class _Chain:
    """A chain of nodes from ``begin``, which is in another chain, to the operand ``label`` of ``end``."""

    begin: str
    nodes: list[str]
    end: str
    label: str | None
    lane: int = 0


@lru_cache(maxsize=16)
def layout(wiring: Diagram, columns: int = 30) -> Layout:
    """Place ``wiring`` in rows of at most ``columns`` columns, or more if a row cannot be broken."""
    layers = {INPUT: 0}
    for node in wiring.nodes:
        layers[node.name] = 1 + max(layers[source] for source in node.sources)
    by_name = {node.name: node for node in wiring.nodes}
    spine, sides = _chains(by_name, wiring.output, layers)
    at = _columns(by_name, layers, sides)
    _lanes(sides, at)
    lanes = dict.fromkeys([INPUT, *spine], 0)
    lanes |= {name: chain.lane for chain in sides for name in chain.nodes}
    places = {name: (at[name], float(lanes[name])) for name in lanes}
    edges = [Edge(a, b, _label(by_name[b], a), (places[a], places[b])) for a, b in pairwise([INPUT, *spine])]
    for chain in sides:
        edges += _edges(chain, places)
    last = max(column for column, _ in places.values())
    return Layout(places, tuple(edges), _breaks(places, edges, last, columns))


def _chains(by_name: dict[str, Node], output: str, layers: dict[str, int]) -> tuple[list[str], list[_Chain]]:
    """Find the spine and the side chains, in a search from the output backwards."""
    placed: set[str] = {INPUT}
    sides: list[_Chain] = []
    todo: list[tuple[str, str | None, str]] = []  # ends of side chains still to walk

    def walk(name: str) -> tuple[str, list[str]]:
        nodes: list[str] = []
        while name not in placed:
            placed.add(name)
            nodes.append(name)
            node = by_name[name]
            if isinstance(node, Join):
                *others, main = sorted(node.operands, key=lambda operand: layers[operand.source])
                todo.extend((name, operand.label, operand.source) for operand in others)
                name = main.source
            else:
                name = node.source
        return name, nodes[::-1]

    _, spine = walk(output)
    while todo:
        end, label, source = todo.pop(0)
        begin, nodes = walk(source)
        sides.append(_Chain(begin, nodes, end, label))
    return spine, sides


def _columns(by_name: dict[str, Node], layers: dict[str, int], sides: list[_Chain]) -> dict[str, float]:
    """Compute the nodes' columns: longest-path layers, except that plain side chains are spread evenly."""
    readers: dict[str, int] = {}
    for node in by_name.values():
        for source in node.sources:
            readers[source] = readers.get(source, 0) + 1
    at: dict[str, float] = {name: float(layer) for name, layer in layers.items()}
    for chain in sides:
        if any(isinstance(by_name[name], Join) or readers[name] > 1 for name in chain.nodes):
            continue
        begin, room = at[chain.begin], at[chain.end] - at[chain.begin]
        for i, name in enumerate(chain.nodes, 1):
            at[name] = begin + room * i / (len(chain.nodes) + 1)
    return at


def _lanes(sides: list[_Chain], at: dict[str, float]) -> None:
    taken: list[list[Point]] = []
    for chain in sorted(sides, key=lambda c: (at[c.end] - at[c.begin], -len(c.nodes))):
        begin, end = at[chain.begin], at[chain.end]
        for chain.lane, spans in enumerate(taken, 1):
            if all(end <= a or b <= begin for a, b in spans):
                spans.append((begin, end))
                break
        else:
            taken.append([(begin, end)])
            chain.lane = len(taken)


def _edges(chain: _Chain, places: dict[str, Point]) -> list[Edge]:
    """Make a chain's edges, which rise to the chain's lane just after the source, and fall just before the end."""
    (x0, y0), (x1, y1), lane = places[chain.begin], places[chain.end], float(chain.lane)
    jog = min(JOG, (x1 - x0) / 2 - 0.08)
    rise: list[Point] = [(x0, y0)] if y0 == lane else [(x0, y0), (x0 + jog, y0), (x0 + jog, lane)]
    fall: list[Point] = [(x1, y1)] if y1 == lane else [(x1 - jog, lane), (x1 - jog, y1), (x1, y1)]
    if not chain.nodes:
        return [Edge(chain.begin, chain.end, chain.label, (*rise, *fall))]
    first, last = chain.nodes[0], chain.nodes[-1]
    found = [Edge(chain.begin, first, None, (*rise, places[first]))]
    found += [Edge(a, b, None, (places[a], places[b])) for a, b in pairwise(chain.nodes)]
    return [*found, Edge(last, chain.end, chain.label, (places[last], *fall))]


def _label(target: Node, source: str) -> str | None:
    if not isinstance(target, Join):
        return None
    return next(o.label for o in reversed(target.operands) if o.source == source)


def _breaks(places: dict[str, Point], edges: list[Edge], last: float, columns: int) -> tuple[float, ...]:
    """Choose row breaks that cut no nodes and few edges and fill the rows. A short remainder gets no row of its own."""
    breaks = [-0.5]
    while last + 0.5 - breaks[-1] > 1.15 * columns:
        begin = breaks[-1]
        found = [begin + k for k in range(max(1, round(0.6 * columns)), columns + 1)]
        breaks.append(min(found, key=lambda x: (_crossing(x, places, edges), -x)))
    return (*breaks, last + 0.5)


def _crossing(x: float, places: dict[str, Point], edges: list[Edge]) -> int:
    hit = sum(abs(column - x) < NEAR for column, _ in places.values())
    pieces = [a[1] for edge in edges for a, b in pairwise(edge.points) if a[0] < x < b[0]]
    return 100 * hit + 10 * len(set(pieces)) + len(pieces)  # edges that leave a node together look like one
