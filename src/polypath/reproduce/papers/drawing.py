"""Functions that draw figures in the papers' forms. Several experiments use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polypath.analysis.plots.parts import mean_curve, side_by_side
from polypath.analysis.plots.style import COLOURS, canvas
from polypath.reproduce.figures import Draw, finish, value_of
from polypath.reproduce.papers.rows import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result


def along_rows(kinds: Mapping[str, str], xlabel: str, ylabel: str = "test error (%)") -> Draw:
    """Return a function that draws bars of several kinds side by side for each row (DFN's Figures 2, 4 and 5). It draws
    the mean, a whisker of one standard deviation over seeds, and a mark at the printed number."""

    def draw(result: Result) -> Figure:
        found = {kind: rows_of(result.errors, kind) for kind in kinds}
        rows = sorted({row for of in found.values() for row in of})
        figure, (axis,) = canvas(width=max(5.6, 1.5 + 1.0 * len(rows)), height=4.2)
        series = {
            kinds[kind]: {rows.index(row): value_of(result, f"{kind} {row}") for row in of}
            for kind, of in found.items()
            if of
        }
        side_by_side(axis, [str(row) for row in rows], series)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        return finish(figure, result)

    return draw


def training_panels(panels: Mapping[str, str], labels: Mapping[str, str] | None = None, xlabel: str = "epoch") -> Draw:
    """Return a function that draws a panel for each of ``panels``, which map the suffix of the curves' keys (`` loss``)
    to the y label. A panel has a line for each arm: the mean over seeds, within a band from the lowest to the highest
    seed. If ``labels`` is given, only its arms are drawn, with these labels."""

    def draw(result: Result) -> Figure:
        shown = {end: label for end, label in panels.items() if any(k.endswith(end) for k in result.curves)}
        figure, axes = canvas(width=4.6 * max(1, len(shown)), height=4.2, panels=max(1, len(shown)))
        for axis, (end, ylabel) in zip(axes, shown.items(), strict=False):
            arms = [k.removesuffix(end) for k in result.curves if k.endswith(end)]
            for i, arm in enumerate(a for a in arms if labels is None or a in labels):
                mean_curve(axis, result.curves[f"{arm}{end}"], labels[arm] if labels else arm, i)
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel)
        return finish(figure, result)

    return draw


def channel_lines(panels: Sequence[tuple[str, Mapping[str, str]]], xlabel: str = "channel") -> Draw:
    """Return a function that draws panels of the first seed's curves by channel (DRNN's Fig. 7). Each panel is a title
    and ``{key: label}``."""

    def draw(result: Result) -> Figure:
        shown = [(title, keys) for title, keys in panels if all(k in result.curves for k in keys)]
        figure, axes = canvas(width=4.6 * max(1, len(shown)), height=3.8, panels=max(1, len(shown)))
        if not shown:
            axes[0].text(0.5, 0.5, "nothing to show: no such gate passes some images and stops others", ha="center")
            axes[0].set_axis_off()
        for axis, (title, keys) in zip(axes, shown, strict=False):
            for i, (key, label) in enumerate(keys.items()):
                line = result.curves[key][0]
                axis.plot([x for x, _ in line], [y for _, y in line], color=COLOURS[i], lw=1.1, label=label)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel(xlabel)
        return finish(figure, result)

    return draw
