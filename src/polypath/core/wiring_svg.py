"""Draw a wiring as an SVG picture with a choice highlighted, for reports and pages.

The picture is text and needs only a browser. A page may set its colours with the CSS custom properties ``--pp-live``,
``--pp-dead`` and ``--pp-surface``, for light and dark modes; text is ``currentColor``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from itertools import pairwise

from polypath.core.nodes import INPUT, WHOLE, Choice, Join, Node
from polypath.core.wiring_layout import Diagram, Edge, Layout, Point, layout

COLUMN, LANE, HEAD, FOOT, MARGIN = 34.0, 24.0, 14.0, 30.0, 6.0  # pixels
SYMBOLS = {"mean": "µ", "sum": "+", "max": "max", "switch": "?", "concat": "‖"}
STYLE = """
.pp-wiring{max-width:100%;height:auto;font:9px system-ui,sans-serif;color:inherit}
.pp-wiring path{fill:none;stroke:var(--pp-dead,#c9ced6);stroke-width:1.2}
.pp-wiring path.live{stroke:var(--pp-live,#1f5fa8);stroke-width:2.4}
.pp-wiring .node{fill:var(--pp-surface,#fff);stroke:var(--pp-dead,#c9ced6);stroke-width:1.2}
.pp-wiring .node.live{stroke:var(--pp-live,#1f5fa8);stroke-width:1.6}
.pp-wiring .unit.live{fill:var(--pp-live,#1f5fa8)}
.pp-wiring text{fill:currentColor;text-anchor:middle}
.pp-wiring text.dead{opacity:.45}
.pp-wiring text.part{text-anchor:start;opacity:.75}
"""


def wiring_svg(wiring: Diagram, choice: Choice | None = None, *, columns: int = 30, title: str | None = None) -> str:
    """Draw the diagram as one ``<svg>`` element. Layers are boxes, units that add no depth are dots, joins are circles
    (µ mean, + sum, ? switch). Each node shows its name when the pointer is over the node.

    Args:
        wiring: the diagram, which is drawn completely.
        choice: the choice to highlight (:class:`polypath.Paths` or a mapping), None for the whole network. If gates
            decide a switch, all its operands are highlighted. To show one image's loops, give the choice that the gates
            made.
        columns: number of nodes side by side before the drawing continues in the next row.
        title: text for screen readers, by default the choice and how many nodes run.
    """
    plan = layout(wiring, max(4, columns))
    live = {INPUT, *(node.name for node in wiring.alive(choice or WHOLE))}
    if title is None:
        shown = ";".join(f"{join}={','.join(labels)}" for join, labels in (choice or {}).items()) or "whole"
        title = f"Wiring diagram, {shown}: {len(live) - 1} of {len(wiring.nodes)} nodes run"
    rows, joins = _Rows(plan), _joins(wiring)
    lit = {edge: _lit(joins, edge, live, choice or WHOLE) for edge in plan.edges}
    parts = [f"<title>{escape(title)}</title><style>{STYLE}</style>"]
    for i, edge in sorted(enumerate(plan.edges), key=lambda pair: lit[pair[1]]):  # live edges above dead ones
        kind = ' class="live"' if lit[edge] else ""
        parts += [f'<path{kind} data-edge="{i}" d="{d}"/>' for d in rows.lines(edge)]
    parts += [_operand(joins, edge, rows, lit[edge], i) for i, edge in enumerate(plan.edges)]
    parts.append(_node(INPUT, None, rows.at(plan.places[INPUT]), True))
    parts += [_node(node.name, node, rows.at(plan.places[node.name]), node.name in live) for node in wiring.nodes]
    parts += _part_names(wiring, plan, rows)
    size = f'viewBox="0 0 {rows.width:g} {rows.height:g}" width="{rows.width:g}" height="{rows.height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pp-wiring" role="img" aria-label="{escape(title)}" '
        f"{size}>{''.join(parts)}</svg>"
    )


def lights(wiring: Diagram, choices: Mapping[str, Choice]) -> dict[str, dict[str, str]]:
    """Return which elements of the picture each choice highlights, so that a page can switch between the choices.

    ``nodes`` has a ``1`` or ``0`` for each element with ``data-node``, in order. ``edges`` has the same for elements
    with ``data-edge``."""
    plan, joins = layout(wiring), _joins(wiring)
    found: dict[str, dict[str, str]] = {}
    for name, choice in choices.items():
        live = {INPUT, *(node.name for node in wiring.alive(choice))}
        nodes = "".join("01"[node in live] for node in (INPUT, *(node.name for node in wiring.nodes)))
        edges = "".join("01"[_lit(joins, edge, live, choice)] for edge in plan.edges)
        found[name] = {"nodes": nodes, "edges": edges}
    return found


class _Rows:
    """A picture's rows, one under the other. This class converts columns and lanes to pixels."""

    def __init__(self, plan: Layout) -> None:
        self.breaks = plan.breaks
        most = [0.0] * (len(plan.breaks) - 1)
        for edge in plan.edges:
            for row, points in self._split(edge.points):
                most[row] = max(most[row], *(lane for _, lane in points))
        self.tops: list[float] = []
        self.height = 0.0
        for lanes in most:
            self.tops.append(self.height + HEAD + lanes * LANE)
            self.height = self.tops[-1] + FOOT
        widest = max(b - a for a, b in pairwise(self.breaks))
        self.width = widest * COLUMN + 2 * MARGIN

    def row(self, column: float) -> int:
        return next(i for i, end in enumerate(self.breaks[1:]) if column <= end or i == len(self.tops) - 1)

    def at(self, place: Point, row: int | None = None) -> Point:
        column, lane = place
        i = self.row(column) if row is None else row
        return MARGIN + (column - self.breaks[i]) * COLUMN, self.tops[i] - lane * LANE

    def lines(self, edge: Edge) -> Iterator[str]:
        """Yield the edge as SVG path data, once for each row that it goes through."""
        for row, points in self._split(edge.points):
            yield _rounded([self.at(point, row) for point in points])

    def _split(self, points: tuple[Point, ...]) -> Iterator[tuple[int, list[Point]]]:
        row = next(i for i, end in enumerate(self.breaks[1:]) if points[0][0] < end)
        part: list[Point] = [points[0]]
        for point in points[1:]:
            while point[0] > self.breaks[row + 1]:
                cut = (self.breaks[row + 1], part[-1][1])
                yield row, [*part, cut]
                part, row = [cut], row + 1
            part.append(point)
        yield row, part


def _rounded(points: list[Point], radius: float = 6.0) -> str:
    """Write path data of a polyline of horizontal and vertical pieces, with round corners."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (ax, ay), (bx, by) = _towards(corner, before, radius), _towards(corner, after, radius)
        text += f"L{ax:.1f} {ay:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {bx:.1f} {by:.1f}"
    return f"{text}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _towards(corner: Point, other: Point, radius: float) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    far = max(abs(dx), abs(dy))
    share = min(radius, far / 2) / far if far else 0.0
    return corner[0] + dx * share, corner[1] + dy * share


def _joins(wiring: Diagram) -> dict[str, Join]:
    return {node.name: node for node in wiring.nodes if isinstance(node, Join)}


def _lit(joins: dict[str, Join], edge: Edge, live: set[str], choice: Choice) -> bool:
    if edge.source not in live or edge.target not in live:
        return False
    join = joins.get(edge.target)
    return join is None or edge.label in {operand.label for operand in join.chosen(choice)}


def _node(name: str, node: Node | None, at: Point, live: bool) -> str:
    (x, y), on, text = at, " live" if live else "", ""
    if node is None:
        shape = f'<circle class="node{on}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    elif isinstance(node, Join):
        shape = f'<circle class="node{on}" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        dead = "" if live else ' class="dead"'
        text = f'<text{dead} x="{x:.1f}" y="{y + 3:.1f}">{SYMBOLS[node.kind]}</text>'
    elif node.depth:
        shape = f'<rect class="node unit{on}" x="{x - 10:.1f}" y="{y - 7:.1f}" width="20" height="14" rx="3"/>'
    else:
        shape = f'<circle class="node unit{on}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    state = "runs" if live else "does not run"
    return f'<g data-node="{escape(name)}"><title>{escape(_tell(name, node))}: {state}</title>{shape}{text}</g>'


def _tell(name: str, node: Node | None) -> str:
    if not isinstance(node, Join):
        return name
    kind = "gated switch" if node.gates else node.kind
    return f"{name} ({kind} of {', '.join(node.labels)})"


def _operand(joins: dict[str, Join], edge: Edge, rows: _Rows, live: bool, number: int) -> str:
    """Draw the operand's label above the end of its edge. A label that only tells left from right is omitted."""
    join = joins.get(edge.target)
    if join is None or edge.label is None or (join.kind != "switch" and set(join.labels) <= {"L", "R", "R1", "R2"}):
        return ""
    column, lane = edge.points[-1]
    if len(edge.points) > 2 and edge.points[-2][0] == edge.points[-3][0]:  # the edge falls: label before the corner
        column, lane = edge.points[-3]
        column -= 0.2
    else:
        column -= 0.42
    x, y = rows.at((column, lane))
    dead = "" if live else ' class="dead"'
    return f'<text{dead} data-edge="{number}" x="{x:.1f}" y="{y - 4:.1f}">{escape(edge.label)}</text>'


def _part_names(wiring: Diagram, plan: Layout, rows: _Rows) -> list[str]:
    """Draw ``block1``, ``group2``, … under the first node of each part, and again where a row begins inside a part."""
    found: list[str] = []
    last = ("", -1)
    for name in sorted((node.name for node in wiring.nodes), key=lambda name: plan.places[name][0]):
        column = plan.places[name][0]
        part = (name.partition(".")[0], rows.row(column))
        if part == last:
            continue
        x, y = rows.at((column, 0.0), part[1])
        found.append(f'<text class="part" x="{x - 10:.1f}" y="{y + 21:.1f}">{escape(part[0])}</text>')
        last = part
    return found
