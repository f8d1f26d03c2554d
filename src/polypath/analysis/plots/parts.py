"""Parts of Matplotlib charts: labels beside marks, groups of values side by side, the mean of several curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from polypath.analysis.plots.labels import Box, place
from polypath.analysis.plots.marks import Mark
from polypath.analysis.plots.style import COLOURS, DPI, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Value(NamedTuple):
    """A mean, its standard deviation, and the number printed in the paper. A missing number is None."""

    mean: float
    spread: float | None = None
    printed: float | None = None


def side_by_side(
    axis: Axes, groups: Sequence[str], series: Mapping[str, Mapping[int, Value]], *, kind: str = "bar"
) -> None:
    """Draw groups of values with whiskers of one standard deviation. Diamonds are the numbers printed in the paper.

    Args:
        groups: names of the groups along the axis.
        series: for each series, its label and its values by the index of the group.
        kind: ``bar``, ``barh`` (groups from top to bottom) or ``dots``.
    """
    lying, several = kind == "barh", len(series) > 1
    room = 0.8 / max(1, len(series))
    named = False
    for i, (label, values) in enumerate(series.items()):
        at = [group + (i - (len(series) - 1) / 2) * room for group in values]
        means, spreads = [v.mean for v in values.values()], [v.spread for v in values.values()]
        whiskers = [s or 0.0 for s in spreads] if any(s is not None for s in spreads) else None
        colour = COLOURS[i % len(COLOURS)]
        if kind == "dots":
            options: dict[str, Any] = {"fmt": MARKERS[i % len(MARKERS)], "ms": 5.5, "lw": 1.2, "capsize": 2.5}
            axis.errorbar(at, means, whiskers, color=colour, label=label, **options)
        else:
            options = {"color": colour, "label": label, "error_kw": {"lw": 1.0, "capsize": 2.0, "ecolor": "0.25"}}
            if lying:
                axis.barh(at, means, xerr=whiskers, height=room * 0.92 if several else 0.62, **options)
            else:
                axis.bar(at, means, yerr=whiskers, width=room * 0.92, **options)
        printed = [(place, v.printed) for place, v in zip(at, values.values(), strict=True) if v.printed is not None]
        if printed:
            along, across = zip(*printed, strict=True)
            x, y = (across, along) if lying else (along, across)
            style: dict[str, Any] = {"color": "0.15", "ms": 4} if several else {"color": COLOURS[1], "ms": 5}
            axis.plot(x, y, "D", ls="", label=None if named else "published", **style)
            named = True
    if lying:
        axis.set_yticks(range(len(groups)), list(groups))
        axis.invert_yaxis()
    else:
        axis.set_xticks(range(len(groups)), list(groups))
    axis.grid(False, axis="y" if lying else "x")


def mean_curve(axis: Axes, seeds: Sequence[Sequence[tuple[float, float]]], label: str, i: int) -> None:
    """Draw the ``i``-th curve of a panel: the mean over several seeds, and a band from the lowest to the highest
    value."""
    length = min(map(len, seeds), default=0)
    if not length:
        return
    x = [point[0] for point in seeds[0][:length]]
    y = np.array([[point[1] for point in curve[:length]] for curve in seeds], dtype=float)
    colour = COLOURS[i % len(COLOURS)]
    dashes: Any = "-" if i < len(COLOURS) else "--"
    axis.plot(x, y.mean(0), dashes, color=colour, marker=MARKERS[i % len(MARKERS)], ms=3.5, lw=1.4, label=label)
    if len(y) > 1:
        axis.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, lw=0)


def name_marks(panel: Axes, named: Sequence[tuple[Mark, str]]) -> None:
    """Write the label of each mark in the mark's colour. The label is placed where it covers as little as possible of
    marks, lines and other labels. A label far from its mark gets a leader line.

    Positions are in points (1/72 inch), so a figure looks the same in every format.
    """
    from matplotlib.collections import LineCollection

    assert panel.figure is not None
    panel.figure.canvas.draw()  # labels are placed around the things drawn so far
    scale = 72 / DPI
    named = sorted(named, key=lambda pair: (not pair[0].strong, pair[0].y))
    at = np.array([(mark.x, mark.y) for mark, _ in named]).reshape(-1, 2)
    dots = [(x, y) for x, y in (panel.transData.transform(at) * scale).tolist()]
    taken = [Box.around(x, y, 8, 8) for x, y in dots]
    whiskers = [line for of in panel.collections if isinstance(of, LineCollection) for line in of.get_segments()]
    for line in [*(line.get_xydata() for line in panel.lines), *whiskers]:
        points = panel.transData.transform(line) * scale
        taken.append(Box(*(points.min(0) - 2), *(points.max(0) + 2)))
    texts = [
        panel.annotate(
            mark.label,
            (mark.x, mark.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9 if mark.strong else 8,
            fontweight="bold" if mark.strong else "normal",
            color=colour,
        )
        for mark, colour in named
    ]
    written = [text.get_window_extent() for text in texts]
    sizes = [(box.width * scale, box.height * scale) for box in written]
    inside = Box(*(v * scale for v in panel.get_window_extent().extents))
    spots = place(dots, sizes, taken, inside)
    for (mark, colour), text, (width, height), (dx, dy, _) in zip(named, texts, sizes, spots, strict=True):
        text.set_position((dx, dy))
        if abs(dx) > 0.5 * width + 9 or abs(dy) > 0.5 * height + 9:
            line = {"arrowstyle": "-", "lw": 0.5, "color": colour, "alpha": 0.6, "shrinkA": 1, "shrinkB": 4}
            panel.annotate("", (mark.x, mark.y), xytext=(dx, dy), textcoords="offset points", arrowprops=line)
