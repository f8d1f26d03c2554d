"""Draws the figure of a ladder: the error of each path in the network and alone, and its tax with the interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polypath.analysis.plots.style import COLOURS, GREY, MARKERS, canvas, legend_below
from polypath.worth.result import LadderResult, LadderRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"epochs": "alone, equal epochs", "pflop": "alone, equal total PFLOP", "taught": "alone, taught by the whole"}


def ladder_figure(result: LadderResult) -> Figure:
    """Plot error against milliseconds (MACs if nothing was timed), and the tax of each path with its 95% interval."""
    timed = all(row.p50_ms is not None for row in result.rows)
    figure, (left, right) = canvas(12.0, 5.0, 2, title=f"{result.name}: {result.images:,} test images of {result.data}")
    along = [_along(row, timed) for row in result.rows]
    left.plot(along, [row.error for row in result.rows], "-o", color=COLOURS[0], ms=7, label="in one network")
    right.axhline(0.0, color=GREY, lw=1.0)
    for i, kind in enumerate(result.kinds):
        rows = [(j, row.alone[kind]) for j, row in enumerate(result.rows) if kind in row.alone]
        look: dict[str, Any] = {"color": COLOURS[i + 1], "label": NAMES[kind]}
        left.plot([along[j] for j, _ in rows], [of.error for _, of in rows], "--", marker=MARKERS[i + 1], ms=5, **look)
        at = [j + (i - (len(result.kinds) - 1) / 2) * 0.2 for j, _ in rows]
        ends = [[of.tax - of.low for _, of in rows], [of.high - of.tax for _, of in rows]]
        right.errorbar(at, [of.tax for _, of in rows], ends, fmt=MARKERS[i + 1], ms=5, lw=1.2, capsize=2.5, **look)
    left.set_xlabel("milliseconds for one image (median)" if timed else "MACs for one image (millions)")
    left.set_ylabel("test error (%)")
    right.set_ylabel("tax: error in one network minus error alone (points)")
    right.set_xticks(range(len(result.rows)), [row.name for row in result.rows])
    legend_below(figure)
    return figure


def _along(row: LadderRow, timed: bool) -> float:
    return row.p50_ms if timed and row.p50_ms is not None else row.macs / 1e6
