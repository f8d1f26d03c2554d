"""The figure of a path table: error against MACs and against measured latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polypath.analysis.plots.marks import LATENCY, MACS, Series, error_against, shared_key
from polypath.analysis.plots.parts import name_marks
from polypath.analysis.plots.style import COLOURS, MARKERS, canvas
from polypath.analysis.scoring import PathRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def path_figure(runs: Mapping[str, Sequence[PathRow]], *, title: str = "", footnote: str = "") -> Figure:
    """Draw error against MACs and, if any row has a latency, against measured latency (point p50, whisker to p95).

    The first run is the subject, the others are its rivals. Each run has its own colour. Filled marks show the error
    with recalibrated batch-norm, if measured. Thin lines connect them to hollow marks, which show the error without
    recalibration.
    """
    timed = any(row.p50_ms is not None for rows in runs.values() for row in rows)
    axes = [MACS, LATENCY] if timed else [MACS]
    figure, panels = canvas(13.0 if timed else 7.2, 6.0, len(axes), title=title, sharey=True)
    drawn = [error_against(axis, runs) for axis in axes]
    for panel, axis, series in zip(panels, axes, drawn, strict=True):
        for of in series:
            _draw(panel, of)
        panel.set_xlabel(axis.label)
        panel.margins(x=0.12, y=0.12)
        panel.set_xlim(left=0)
    panels[0].set_ylabel("top-1 error (%)")
    _legend(figure, runs, footnote)
    for panel, series in zip(panels, drawn, strict=True):
        name_marks(panel, [(mark, _look(of)[0]) for of in series for mark in of.marks])
    return figure


def _draw(panel: Axes, of: Series) -> None:
    colour, marker = _look(of)
    for mark in of.marks:
        x, y = mark.x, mark.y
        if mark.from_y is not None:
            panel.plot([x, x], [mark.from_y, y], color=colour, lw=0.7, alpha=0.45, zorder=1)
            panel.plot([x], [mark.from_y], marker, color=colour, mfc="white", ms=4.5, alpha=0.7, zorder=2)
        if mark.to_x is not None:
            panel.plot([x, mark.to_x], [y, y], "|-", color=colour, lw=1.1, ms=5, alpha=0.6, markevery=[1], zorder=1)
        panel.plot([x], [y], marker, color=colour, ms=8 if mark.strong else 6, zorder=3)


def _look(of: Series) -> tuple[str, str]:
    return COLOURS[of.colour - 1], MARKERS[of.colour - 1]


def _legend(figure: Figure, runs: Mapping[str, Sequence[PathRow]], footnote: str) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for i, (run, rows) in enumerate(runs.items()):
        key = shared_key(rows) if i == 0 else None
        text = run if key is None else f"{run}, names are {key}=…"
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, lw=0, label=text))
    if any(row.error_recalibrated is not None for rows in runs.values() for row in rows):
        handles += [
            Line2D([], [], color="0.3", marker="o", lw=0, label="filled: batch-norm recalibrated for the path"),
            Line2D([], [], color="0.3", marker="o", mfc="white", ms=4.5, lw=0, label="hollow: the network's own"),
        ]
    figure.legend(
        handles=handles,
        title=footnote,
        title_fontsize=8,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=8,
    )
