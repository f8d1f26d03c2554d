"""Small charts as inline SVG, for web pages.

:data:`STYLE` is the charts' CSS. A page can set their colours by CSS variables (``--c1`` …, ``--ink``, ``--soft``,
``--line``, ``--card``), so charts work in light and dark mode. Marks that belong to a path have a ``data-path``
attribute, so that the page can highlight them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

from polypath.analysis.plots.labels import Box, place
from polypath.analysis.plots.marks import Mark, Series

WIDTH, HEIGHT = 440.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 42.0
LETTER = 6.2  # approximate width of a letter at 11 px, in pixels
STYLE = """
.chart{margin:0;max-width:40rem}
.chart svg{display:block;width:100%;height:auto;font-family:system-ui,sans-serif}
.chart figcaption{font-size:.9rem;font-weight:600}
.chart text{fill:var(--soft,currentColor);font-size:11px}
.chart .axis{text-anchor:middle;font-size:12px}
.chart .tick.y,.chart .turned{text-anchor:end}
.chart .tick.x{text-anchor:middle}
.chart .name{fill:var(--ink,currentColor);text-anchor:middle}
.chart .strong{font-weight:600}
.chart .grid{stroke:var(--line,#d9dee5);stroke-width:.8;fill:none}
.chart .base{stroke:var(--soft,currentColor);stroke-width:1;fill:none}
.chart .s1{--c:var(--c1,#1f5fa8)} .chart .s2{--c:var(--c2,#c8323f)} .chart .s3{--c:var(--c3,#2e8b57)}
.chart .s4{--c:var(--c4,#8e5ea2)} .chart .s5{--c:var(--c5,#b3721d)} .chart .s6{--c:var(--c6,#6b7480)}
.chart path.line,.chart path.dashed{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.chart path.dashed{stroke-width:1;stroke-dasharray:4 4}
.chart path.stairs{fill:none;stroke:var(--c);stroke-width:1.2;opacity:.6}
.chart rect.bars{fill:var(--c)}
.chart rect.columns{fill:var(--c);opacity:.22}
.chart .dot{fill:var(--c);stroke:var(--card,#fff);stroke-width:1}
.chart .hollow{fill:var(--card,#fff);stroke:var(--c);stroke-width:1.2;opacity:.8}
.chart .tie,.chart .whisker{stroke:var(--c);stroke-width:1;fill:none;opacity:.55}
.chart .late{opacity:.4}
.chart .chosen .dot{stroke:var(--ink,currentColor);stroke-width:2.5;r:7px}
.chart .rule{stroke:var(--c);stroke-width:1.6;stroke-dasharray:5 3;fill:none}
.chart .rule-name{fill:var(--c);font-weight:600}
.chart .legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:0 0 .3rem;padding:0 0 0 3rem;list-style:none}
.chart .legend{color:var(--soft,inherit);font-size:.85rem}
.chart .legend i{display:inline-block;width:1em;height:.7em;margin-right:.4em;background:var(--c);border-radius:2px}
.chart .legend .line i,.chart .legend .dashed i,.chart .legend .stairs i{height:3px;vertical-align:middle}
.chart .legend .dots i{width:.7em;border-radius:50%}
"""


@dataclass(frozen=True)
class Rule:
    """A vertical line across the chart, with its name at the top."""

    x: float
    name: str
    colour: int = 2


def chart(
    series: Sequence[Series],
    *,
    xlabel: str,
    ylabel: str,
    about: str,
    width: float = WIDTH,
    height: float = HEIGHT,
    from_zero: str = "",
    powers: bool = False,
    names: Sequence[str] = (),
    bounds: tuple[float, float, float, float] | None = None,
    rule: Rule | None = None,
    title: str = "",
    legend: bool = True,
) -> str:
    """Return one ``<figure>``, or an empty string if there is no point to draw.

    Args:
        series: the marks, drawn in this order. With ``powers``, ``y`` values are base-10 logarithms.
        about: a description of the chart for screen readers.
        from_zero: the axes that begin at 0: ``x``, ``y`` or ``xy``.
        names: labels for the positions 0, 1, … of the x axis, instead of numbers.
        bounds: limits of x and y; by default, they follow from the points.
        rule: a vertical line to draw.
        title, legend: text above the chart.
    """
    points = [mark for of in series for mark in of.marks if _finite(mark)]
    if not points:
        return ""
    frame = _Frame.around(points, series, from_zero, bounds, names, width, height)
    frame = replace(frame, y0=-0.4, floor=-0.4) if powers else replace(frame, floor=max(0.0, frame.y0))
    inside = [frame.grid(powers, names), *(_draw(of, frame) for of in series)]
    if rule is not None:
        inside.append(_rule(rule, frame))
    inside += _names(series, frame, rule)
    inside.append(
        f'<text class="axis" x="{(LEFT + width - RIGHT) / 2:.0f}" y="{height - 6:.0f}">{escape(xlabel)}</text>'
        f'<text class="axis" transform="translate(13 {(TOP + frame.bottom) / 2:.0f}) rotate(-90)">'
        f"{escape(ylabel)}</text>"
    )
    above = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    if legend and len(series) > 1:
        keys = "".join(f'<li class="s{of.colour} {of.kind}"><i></i>{escape(of.name)}</li>' for of in series)
        above += f'<ul class="legend">{keys}</ul>'
    return (
        f'<figure class="chart">{above}<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(about)}">'
        f"{''.join(inside)}</svg></figure>"
    )


@dataclass(frozen=True)
class _Frame:
    x0: float
    x1: float
    y0: float
    y1: float
    width: float
    bottom: float
    floor: float = 0.0  # y at the foot of bars

    @classmethod
    def around(
        cls,
        points: Sequence[Mark],
        series: Sequence[Series],
        from_zero: str,
        bounds: tuple[float, float, float, float] | None,
        names: Sequence[str],
        width: float,
        height: float,
    ) -> _Frame:
        bottom = height - (14.0 + LETTER * max(map(len, names)) if names else BOTTOM)
        if bounds is not None:
            return cls(*bounds, width, bottom)
        xs = [v for m in points for v in (m.x, m.to_x) if v is not None]
        ys = [v for m in points for v in (m.y, m.from_y) if v is not None]
        bars = any(of.kind == "bars" for of in series)
        x0, x1 = _padded(min(xs), max(xs), 0.0 if all(of.kind in ("line", "dashed") for of in series) else 0.05)
        if bars or names:
            x0, x1 = min(xs) - 0.7, max(xs) + 0.7
        y0, y1 = _padded(min(ys), max(ys), 0.08)
        if "x" in from_zero:
            x0 = 0.0
        if "y" in from_zero:
            y0 = min(0.0, min(ys) * 1.08)
        if min(ys) >= 0.0:
            y0 = max(0.0, y0)
        return cls(x0, x1, y0, y1, width, bottom)

    @property
    def right(self) -> float:
        return self.width - RIGHT

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (self.right - LEFT)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.bottom - TOP)

    def grid(self, powers: bool, names: Sequence[str]) -> str:
        parts, right = [], self.right
        for value in ticks(self.y0, self.y1, 5, whole=powers):
            text = f'10<tspan dy="-4" font-size="8">{value:g}</tspan>' if powers else f"{value:g}"
            at = self.y(value)
            parts.append(f'<path class="grid" d="M{LEFT:g} {at:.1f}H{right:g}"/>')
            parts.append(f'<text class="tick y" x="{LEFT - 6:g}" y="{at + 4:.1f}">{text}</text>')
        if names:
            step = max(1, math.ceil(len(names) * 14 / (right - LEFT)))
            for i in range(0, len(names), step):
                at = self.x(i)
                turned = f'transform="translate({at + 4:.1f} {self.bottom + 8:.1f}) rotate(-90)"'
                parts.append(f'<text class="tick turned" {turned}>{escape(names[i])}</text>')
        else:
            for value in ticks(self.x0, self.x1, 6):
                at = self.x(value)
                parts.append(f'<path class="base" d="M{at:.1f} {self.bottom:g}v3"/>')
                parts.append(f'<text class="tick x" x="{at:.1f}" y="{self.bottom + 16:.1f}">{value:g}</text>')
        parts.append(f'<path class="base" d="M{LEFT:g} {self.y(self.floor):.1f}H{right:g}"/>')
        return "".join(parts)


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers between ``low`` and ``high``."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [round(float(v), 12) for v in found if low - slack <= v <= high + slack]


def _finite(mark: Mark) -> bool:
    return math.isfinite(mark.x) and math.isfinite(mark.y)


def _draw(of: Series, frame: _Frame) -> str:
    marks = [mark for mark in of.marks if _finite(mark)]
    if of.kind in ("line", "dashed") and len(marks) == 1:  # a line through one point would be invisible
        return _dot(marks[0], frame, of.colour)
    if of.kind in ("line", "dashed"):
        points = "L".join(f"{frame.x(m.x):.1f} {frame.y(m.y):.1f}" for m in marks)
        return f'<path class="{of.kind} s{of.colour}" d="M{points}"/>' if marks else ""
    if of.kind == "stairs":
        steps = "".join(f"H{frame.x(m.x):.1f}V{frame.y(m.y):.1f}" for m in marks[1:])
        begin = f"M{frame.x(marks[0].x):.1f} {frame.y(marks[0].y):.1f}" if marks else ""
        return f'<path class="stairs s{of.colour}" d="{begin}{steps}H{frame.right:.1f}"/>' if marks else ""
    if of.kind in ("bars", "columns"):
        room = 1.0 if of.kind == "bars" else 0.1
        return "".join(_bar(mark, frame, of, room) for mark in marks)
    return "".join(_dot(mark, frame, of.colour) for mark in marks)


def _bar(mark: Mark, frame: _Frame, of: Series, room: float) -> str:
    width = max(1.0, 0.8 * (frame.x(room) - frame.x(0.0)))
    top, base = sorted((frame.y(mark.y), frame.y(frame.floor)))
    return (
        f'<rect class="{of.kind} s{of.colour}" x="{frame.x(mark.x) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{max(0.5, base - top):.1f}"><title>{escape(mark.about)}</title></rect>'
    )


def _dot(mark: Mark, frame: _Frame, colour: int) -> str:
    x, y, parts = frame.x(mark.x), frame.y(mark.y), []
    if mark.from_y is not None:
        other = frame.y(mark.from_y)
        parts.append(f'<path class="tie" d="M{x:.1f} {other:.1f}V{y:.1f}"/>')
        parts.append(f'<circle class="hollow" cx="{x:.1f}" cy="{other:.1f}" r="3.5"/>')
    if mark.to_x is not None:
        parts.append(f'<path class="whisker" d="M{x:.1f} {y:.1f}H{frame.x(mark.to_x):.1f}m0 -3v6"/>')
    parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    state = f" {mark.state}" if mark.state else ""
    path = f' data-path="{escape(mark.path)}"' if mark.path else ""
    return f'<g class="mark s{colour}{state}"{path}><title>{escape(mark.about)}</title>{"".join(parts)}</g>'


def _rule(rule: Rule, frame: _Frame) -> str:
    at = frame.x(rule.x)
    anchor, aside = ("end", -5) if at > (LEFT + frame.right) / 2 else ("start", 5)
    return (
        f'<g class="s{rule.colour}"><path class="rule" d="M{at:.1f} {TOP:g}V{frame.bottom:g}"/>'
        f'<text class="rule-name" x="{at + aside:.1f}" y="{TOP + 8:g}" text-anchor="{anchor}">{escape(rule.name)}'
        "</text></g>"
    )


def _names(series: Sequence[Series], frame: _Frame, rule: Rule | None) -> list[str]:
    """Draw labels beside their marks, strong labels first. Other labels are omitted where they would cover
    something."""
    every = [mark for of in series if of.kind == "dots" for mark in of.marks if _finite(mark)]
    named = sorted((m for m in every if m.label), key=lambda m: (not m.strong, -m.y))
    sizes = [_size(m) for m in named]
    at, inside = [(frame.x(m.x), frame.y(m.y)) for m in named], Box(LEFT, 0.0, frame.width, frame.bottom)
    spots = place(at, sizes, _taken(series, every, frame, rule), inside, reach=2)
    found = []
    for mark, (dx, dy, covered) in zip(named, spots, strict=True):
        if mark.strong or covered < 1:  # pixel
            x, y, kind = frame.x(mark.x) + dx, frame.y(mark.y) + dy + 4, "name strong" if mark.strong else "name"
            found.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(mark.label)}</text>')
    return found


def _size(mark: Mark) -> tuple[float, float]:
    """Return width and height of a label. Strong labels are bold and leave room for a larger dot."""
    width = LETTER * len(mark.label)
    return (1.15 * width + 8, 17.0) if mark.strong else (width + 2, 13.0)


def _taken(series: Sequence[Series], dots: Sequence[Mark], frame: _Frame, rule: Rule | None) -> list[Box]:
    """Return the boxes that labels should not cover: dots with their hollow twins and whiskers, stairs, and the rule
    with its name."""
    found = [Box.around(frame.x(m.x), frame.y(m.y), 10, 10) for m in dots]
    found += [Box.around(frame.x(m.x), frame.y(m.from_y), 8, 8) for m in dots if m.from_y is not None]
    found += [Box(frame.x(m.x), frame.y(m.y), frame.x(m.to_x), frame.y(m.y) + 1) for m in dots if m.to_x is not None]
    for of in (of for of in series if of.kind == "stairs"):
        for a, b in pairwise([*of.marks, replace(of.marks[-1], x=frame.x1)]):
            (x0, y0), (x1, y1) = (frame.x(a.x), frame.y(a.y)), (frame.x(b.x), frame.y(b.y))
            found += [Box(x0, y0, x1, y0 + 1), Box(x1, min(y0, y1), x1 + 1, max(y0, y1))]
    if rule is not None:
        at, width = frame.x(rule.x), 5 + 1.15 * LETTER * len(rule.name)
        left = at - width if at > (LEFT + frame.right) / 2 else at
        found += [Box(at - 1, TOP, at + 1, frame.bottom), Box(left, TOP - 4, left + width, TOP + 12)]
    return found


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        return low - 0.5, high + 0.5
    return low - (high - low) * share, high + (high - low) * share
