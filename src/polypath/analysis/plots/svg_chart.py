"""Small charts as inline SVG. Colours come from the page's CSS (``--c1`` …), so they work in light and dark; marks that
belong to a path carry ``data-path``, so that the page can light them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH, HEIGHT = 440.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 42.0
LETTER = 6.2  # pixels, about, of one at 11 px


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point: what it is called, which path it belongs to, a whisker to ``to_x``, a hollow twin at ``from_y``."""

    x: float
    y: float
    name: str = ""
    path: str = ""
    to_x: float | None = None
    from_y: float | None = None
    labelled: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one colour: ``line``, ``dashed``, ``dots``, ``bars`` (1 wide) or ``columns`` (0.1 wide)."""

    name: str
    kind: str
    marks: Sequence[Mark]
    colour: int = 1


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
    title: str = "",
    legend: bool = True,
) -> str:
    """One ``<figure>``, or nothing where there is no point to draw.

    Args:
        series: what to draw, one above the other; ``y`` are logarithms to base 10 where ``powers``.
        about: what the picture says to those who cannot see it.
        from_zero: axes that begin at 0, ``x``, ``y`` or ``xy``.
        names: of the places 0, 1, … of the x axis, instead of numbers.
        bounds: of x and y, instead of what the points need.
        title, legend: what stands above the picture.
    """
    points = [mark for of in series for mark in of.marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    if not points:
        return ""
    frame = _Frame.around(points, series, from_zero, bounds, names, width, height)
    frame = replace(frame, y0=-0.4, floor=-0.4) if powers else replace(frame, floor=max(0.0, frame.y0))
    inside = [frame.grid(powers, names), *(_draw(of, frame) for of in series)]
    inside += _labels(series, frame)
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
    floor: float = 0.0  # where bars stand

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

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.bottom - TOP)

    def grid(self, powers: bool, names: Sequence[str]) -> str:
        parts, right = [], self.width - RIGHT
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
                parts.append(
                    f'<text class="tick x" x="{self.x(value):.1f}" y="{self.bottom + 16:.1f}">{value:g}</text>'
                )
        parts.append(f'<path class="base" d="M{LEFT:g} {self.y(self.floor):.1f}H{right:g}"/>')
        return "".join(parts)


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers between ``low`` and ``high``."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [round(float(v), 12) for v in found if low - slack <= v <= high + slack]


def _draw(of: Series, frame: _Frame) -> str:
    marks = [mark for mark in of.marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    if of.kind in ("line", "dashed"):
        points = "L".join(f"{frame.x(m.x):.1f} {frame.y(m.y):.1f}" for m in marks)
        return f'<path class="{of.kind} s{of.colour}" d="M{points}"/>' if marks else ""
    if of.kind in ("bars", "columns"):
        room = 1.0 if of.kind == "bars" else 0.1
        return "".join(_bar(mark, frame, of, room) for mark in marks)
    return "".join(_dot(mark, frame, of.colour) for mark in marks)


def _bar(mark: Mark, frame: _Frame, of: Series, room: float) -> str:
    width = max(1.0, 0.8 * (frame.x(room) - frame.x(0.0)))
    top, base = sorted((frame.y(mark.y), frame.y(frame.floor)))
    return (
        f'<rect class="{of.kind} s{of.colour}" x="{frame.x(mark.x) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{max(0.5, base - top):.1f}"><title>{escape(mark.name)}</title></rect>'
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
    path = f' data-path="{escape(mark.path)}"' if mark.path else ""
    return f'<g class="mark s{colour}"{path}><title>{escape(mark.name)}</title>{"".join(parts)}</g>'


def _labels(series: Sequence[Series], frame: _Frame) -> list[str]:
    """Names beside the marks that want one, each where it covers no mark and no other name; else it is left out."""
    every = [m for of in series if of.kind == "dots" for m in of.marks if math.isfinite(m.x) and math.isfinite(m.y)]
    taken = [(frame.x(m.x) - 6, frame.y(m.y) - 6, frame.x(m.x) + 6, frame.y(m.y) + 6) for m in every]
    found = []
    for mark in (m for m in every if m.labelled):
        text = mark.name.partition(":")[0]
        x, y, width = frame.x(mark.x), frame.y(mark.y), LETTER * len(text)
        for dx, dy in (
            (0, -10),
            (0, 18),
            (10 + width / 2, 4),
            (-10 - width / 2, 4),
            (width / 2, -12),
            (-width / 2, 20),
        ):
            box = (x + dx - width / 2, y + dy - 9, x + dx + width / 2, y + dy + 2)
            clear = box[0] > LEFT and box[2] < frame.width and box[1] > 0 and box[3] < frame.bottom
            if clear and not any(_meet(box, other) for other in taken):
                taken.append(box)
                found.append(f'<text class="name" x="{x + dx:.1f}" y="{y + dy:.1f}">{escape(text)}</text>')
                break
    return found


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        return low - 0.5, high + 0.5
    return low - (high - low) * share, high + (high - low) * share


def front(marks: Sequence[Mark], better: Callable[[Mark], float] = lambda m: m.y) -> set[int]:
    """Places of the marks that none beats in both ``x`` and ``better`` (the smaller, the better)."""
    order = sorted(range(len(marks)), key=lambda i: (marks[i].x, better(marks[i])))
    found, best = set(), math.inf
    for i in order:
        if better(marks[i]) < best:
            found.add(i)
            best = better(marks[i])
    return found
