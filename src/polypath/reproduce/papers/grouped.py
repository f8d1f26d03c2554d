"""Draws errors of several kinds for each item, with whiskers of one standard deviation (DFN's Tables 2 and 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polypath.analysis.plots.parts import side_by_side
from polypath.analysis.plots.style import canvas
from polypath.reproduce.figures import Draw, finish, value_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result


def grouped(keys: Sequence[str], kinds: Mapping[str, str], ticks: Sequence[str]) -> Draw:
    """Return a function that draws errors in groups, with one panel per row. ``keys`` are templates of the errors'
    keys, with ``{kind}`` and ``{row}``; ``ticks`` are their labels."""

    def draw(result: Result) -> Figure:
        pattern = re.compile(re.escape(keys[-1]).replace(r"\{kind\}", ".*").replace(r"\{row\}", r"(\d+)"))
        rows = sorted({int(m[1]) for key in result.errors if (m := pattern.fullmatch(key))})
        panels = max(1, len(rows))
        figure, axes = canvas(width=max(5.0, 0.62 * len(keys) + 1.2) * panels, height=4.2, panels=panels)
        for axis, row in zip(axes, rows, strict=False):
            series = {
                label: {n: value_of(result, key.format(kind=kind, row=row)) for n, key in enumerate(keys)}
                for kind, label in kinds.items()
            }
            side_by_side(axis, ticks, series, kind="dots")
            axis.tick_params(axis="x", rotation=30, labelsize=8)
            axis.set_ylabel("test error (%)")
            axis.set_title(f"depth {row}", fontsize=9)
        return finish(figure, result)

    return draw
