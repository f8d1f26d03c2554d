"""A chart of every path's error against its time in milliseconds, with the budget and the chosen path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polypath.analysis.plots.marks import Mark, Series, front
from polypath.analysis.plots.svg_chart import STYLE, Rule, chart
from polypath.explore.subject import PathFacts

COLOURS = """
.pp-curve{--c1:var(--pp-live,#1f5fa8);--c2:var(--pp-budget,#b3541e);--c6:currentColor;--line:var(--pp-dead,#c9ced6)}
.pp-curve{--card:var(--pp-surface,#fff)}
"""


def curve_svg(paths: Sequence[PathFacts], budget_ms: float, chosen: str | None, most_ms: float) -> str:
    """Draw the chart as SVG.

    Each path is a point at its p50 with a whisker to its p99. Paths that are too slow for the budget are faint. A step
    line shows the lowest error for each budget, and a dashed line shows the budget. If a path has no error, the
    vertical axis shows millions of MACs. ``most_ms`` is the right end of the time axis.
    """
    scored = all(path.error is not None for path in paths)
    marks = [_mark(path, scored, budget_ms, path.name == chosen, most_ms) for path in paths]
    reach = front([replace(mark, x=mark.to_x or mark.x) for mark in marks], upper=not scored)
    best = {mark.path for mark in reach}
    marks = [mark if mark.strong or mark.path in best else replace(mark, label="") for mark in marks]
    low, high = min(mark.y for mark in marks), max(mark.y for mark in marks)
    room = max(high - low, 0.1 * abs(high), 0.1)
    name = "top-1 error (%)" if scored else "million MACs"
    told = f"{chosen} is chosen" if chosen else "no path is fast enough"
    drawn = chart(
        [
            Series(name="within reach", kind="stairs", marks=reach, colour=6),
            Series(name="paths", kind="dots", marks=marks),
        ],
        xlabel="ms an image: p50, line to p99",
        ylabel=name,
        about=f"{'Error' if scored else 'MACs'} against milliseconds of {len(paths)} paths; {told}",
        width=480,
        height=290,
        bounds=(0.0, most_ms, max(0.0, low - 0.15 * room), high + 0.15 * room),
        rule=Rule(min(budget_ms, most_ms), f"budget {short(budget_ms)} ms"),
        legend=False,
    )
    return f'<div class="pp-curve"><style>{STYLE}{COLOURS}</style>{drawn}</div>'


def short(value: float) -> str:
    """Return a number as text with three significant digits and without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def _mark(path: PathFacts, scored: bool, budget_ms: float, chosen: bool, most_ms: float) -> Mark:
    error = "" if path.error is None else f"{path.error:.2f}% error, "
    times = f"p50 {short(path.p50_ms)} ms, p99 {short(path.p99_ms)} ms"
    return Mark(
        x=min(path.p50_ms, most_ms),
        y=float(path.error or 0.0) if scored else path.macs / 1e6,
        to_x=min(path.p99_ms, most_ms),
        label=path.name,
        about=f"{path.name}: {error}{times}, {short(path.macs / 1e6)} M MACs",
        path=path.name,
        strong=chosen,
        state="chosen" if chosen else "late" if path.p99_ms > budget_ms else "",
    )
