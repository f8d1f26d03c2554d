"""Error against milliseconds of every path as an SVG picture, with the budget and the chosen path in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from polypath.explore.subject import PathFacts

WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 16.0, 44.0
STYLE = """
.pp-curve{width:100%;max-width:640px;height:auto;font:11px system-ui,sans-serif;color:inherit}
.pp-curve text{fill:currentColor}
.pp-curve .grid{stroke:var(--pp-dead,#c9ced6);stroke-width:.6}
.pp-curve .reach{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.4}
.pp-curve .whisker{stroke:var(--pp-live,#1f5fa8);stroke-width:1.1;opacity:.5}
.pp-curve .point{fill:var(--pp-surface,#fff);stroke:var(--pp-live,#1f5fa8);stroke-width:1.6}
.pp-curve .chosen{fill:var(--pp-live,#1f5fa8)}
.pp-curve .budget{stroke:var(--pp-budget,#b3541e);stroke-width:1.6;stroke-dasharray:5 3}
.pp-curve .budget-text{fill:var(--pp-budget,#b3541e);font-weight:600}
.pp-curve .late{opacity:.45}
"""


def curve_svg(paths: Sequence[PathFacts], budget_ms: float, chosen: str | None, most_ms: float) -> str:
    """The paths as points at their p50 with a whisker to their p99, the least error within reach of each budget as a
    stair, the budget as a dashed line; paths that the budget does not reach are faint.

    Without errors the upright axis shows million MACs. ``most_ms`` is the right end of the time axis.
    """
    scored = all(path.error is not None for path in paths)
    values = {path.name: _value(path, scored) for path in paths}
    low, high = min(values.values()), max(values.values())
    room = max(high - low, 0.1 * abs(high), 0.1)
    low, high = max(0.0, low - 0.15 * room), high + 0.15 * room

    def x(ms: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(ms, most_ms) / most_ms

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = [f"<style>{STYLE}</style>", *_axes(x, y, most_ms, (low, high), scored)]
    parts.append(f'<path class="reach" d="{_stair(paths, values, x, y, most_ms, least=scored)}"/>')
    parts += [_point(path, x, y(values[path.name]), budget_ms, path.name == chosen) for path in paths]
    at = x(budget_ms)
    parts.append(f'<line class="budget" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    anchor = "end" if at > WIDTH / 2 else "start"
    parts.append(
        f'<text class="budget-text" x="{at + (-5 if anchor == "end" else 5):.1f}" y="{TOP + 4}" '
        f'text-anchor="{anchor}">budget {short(budget_ms)} ms</text>'
    )
    told = f"{chosen} is chosen" if chosen else "no path is fast enough"
    label = f"{'Error' if scored else 'MACs'} against milliseconds of {len(paths)} paths; {told}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pp-curve" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}">{"".join(parts)}</svg>'
    )


def short(value: float) -> str:
    """Three significant digits, without an exponent for what a path may take."""
    return f"{float(f'{value:.3g}'):g}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most``."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _value(path: PathFacts, scored: bool) -> float:
    return float(path.error or 0.0) if scored else path.macs / 1e6


def _axes(x, y, most_ms: float, ends: tuple[float, float], scored: bool) -> list[str]:
    parts, floor = [], HEIGHT - BOTTOM
    for ms in ticks(0.0, most_ms):
        parts.append(f'<line class="grid" x1="{x(ms):.1f}" x2="{x(ms):.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{x(ms):.1f}" y="{floor + 15}" text-anchor="middle">{ms:g}</text>')
    for value in ticks(*ends):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">ms an image: p50, line to p99</text>')
    side, name = (TOP + floor) / 2, "top-1 error (%)" if scored else "million MACs"
    parts.append(f'<text transform="translate(13 {side}) rotate(-90)" text-anchor="middle">{name}</text>')
    return parts


def _stair(paths: Sequence[PathFacts], values: dict[str, float], x, y, most_ms: float, *, least: bool) -> str:
    text, best = "", None
    for path in sorted(paths, key=lambda path: path.p99_ms):
        value = values[path.name]
        if best is None:
            text = f"M{x(path.p99_ms):.1f} {y(value):.1f}"
        elif (value < best) == least and value != best:
            text += f"H{x(path.p99_ms):.1f}V{y(value):.1f}"
        else:
            continue
        best = value
    return f"{text}H{x(most_ms):.1f}"


def _point(path: PathFacts, x, height: float, budget_ms: float, chosen: bool) -> str:
    left, right = x(path.p50_ms), x(path.p99_ms)
    late = " late" if path.p99_ms > budget_ms else ""
    error = "" if path.error is None else f"{path.error:.2f}% error, "
    told = (
        f"{path.name}: {error}p50 {short(path.p50_ms)} ms, p99 {short(path.p99_ms)} ms, {short(path.macs / 1e6)} M MACs"
    )
    kind = f"point{' chosen' if chosen else ''}"
    name = ""
    if chosen:
        anchor = "end" if left > WIDTH / 2 else "start"
        name = (
            f'<text x="{left:.1f}" y="{height - 11:.1f}" text-anchor="{anchor}" font-weight="600">'
            f"{escape(path.name)}</text>"
        )
    return (
        f'<g class="path{late}" data-path="{escape(path.name)}"><title>{escape(told)}</title>'
        f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{height:.1f}" y2="{height:.1f}"/>'
        f'<circle class="{kind}" cx="{left:.1f}" cy="{height:.1f}" r="{6 if chosen else 4}"/>{name}</g>'
    )
