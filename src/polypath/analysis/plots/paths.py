"""Figures of path tables, as PNG and SVG."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from polypath.analysis.scoring import PathRow
from polypath.storage.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#8e5ea2", "#c9822b", "#4a4a4a")
DPI = 150
MARKERS = ("o", "s", "^", "D", "v", "P")


class Label(NamedTuple):
    """A name to be written beside the point ``(x, y)``, in data units."""

    x: float
    y: float
    text: str
    colour: str
    strong: bool


def path_figure(runs: Mapping[str, Sequence[PathRow]], *, title: str = "", footnote: str = "") -> Figure:
    """Error against MACs and, where any row has it, against measured latency (point p50, whisker to p95).

    The first run is the network at hand, the others are its rivals, each in a colour of its own. Filled marks are
    the error with re-estimated batch-norm statistics where that was measured; hollow ones, tied to them by a thin
    line, the error without.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = any(row.p50_ms is not None for rows in runs.values() for row in rows)
    figure = Figure(figsize=(13.0 if timed else 7.2, 6.0), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0]
    labels = [_draw(panels[0], runs, _macs, "MACs of one image (millions)")]
    if timed:
        labels.append(_draw(panels[1], runs, _latency, "measured latency (ms): p50, whisker to p95"))
    panels[0].set_ylabel("top-1 error (%)")
    if title:
        figure.suptitle(title, fontsize=12)
    _legend(figure, runs, footnote)
    figure.canvas.draw()  # names are placed by what stands on the canvas
    for panel, wanted in zip(panels, labels, strict=True):
        place_labels(panel, wanted)
    return figure


def save_figure(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into ``folder``, each whole or not at all."""
    written = []
    for kind in ("png", "svg"):
        target = Path(folder) / f"{name}.{kind}"
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=DPI, metadata=metadata)
        write_file(target, drawn.getvalue())
        written.append(target)
    return written


def _macs(row: PathRow) -> float:
    return row.macs / 1e6


def _latency(row: PathRow) -> float | None:
    return row.p50_ms


def _draw(panel: Axes, runs: Mapping[str, Sequence[PathRow]], at: Callable[[PathRow], Any], xlabel: str) -> list[Label]:
    labels = []
    for i, (run, rows) in enumerate(runs.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        for row in rows:
            x, y = at(row), row.best_error
            if x is None:
                continue
            if row.error_recalibrated is not None:
                panel.plot([x, x], [row.error, y], color=colour, lw=0.7, alpha=0.45, zorder=1)
                panel.plot([x], [row.error], marker, color=colour, mfc="white", ms=4.5, alpha=0.7, zorder=2)
            if at is _latency and row.p95_ms is not None:
                panel.plot(
                    [x, row.p95_ms], [y, y], "|-", color=colour, lw=1.1, ms=5, alpha=0.6, markevery=[1], zorder=1
                )
            whole = row.name == "whole"
            panel.plot([x], [y], marker, color=colour, ms=8 if whole else 6, zorder=3)
            text = short_names(rows)[row.name] if i == 0 else (run if whole else f"{run}: {row.name}")
            labels.append(Label(x, y, text, colour, whole))
    panel.set_xlabel(xlabel)
    panel.grid(True, lw=0.4, alpha=0.5)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.12, y=0.12)
    panel.set_xlim(left=0)
    return labels


def short_names(rows: Sequence[PathRow]) -> dict[str, str]:
    """Names without the key that all but ``whole`` share (``branches=1,3`` becomes ``1,3``)."""
    keys = {row.name.partition("=")[0] for row in rows if row.name != "whole"}
    if len(keys) != 1:
        return {row.name: row.name for row in rows}
    return {row.name: row.name.partition("=")[2] or row.name for row in rows}


def _legend(figure: Figure, runs: Mapping[str, Sequence[PathRow]], footnote: str) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for i, (run, rows) in enumerate(runs.items()):
        keys = {row.name.partition("=")[0] for row in rows if row.name != "whole"}
        text = f"{run}, names are {keys.pop()}=…" if i == 0 and len(keys) == 1 else run
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, lw=0, label=text))
    if any(row.error_recalibrated is not None for rows in runs.values() for row in rows):
        handles += [
            Line2D([], [], color="0.3", marker="o", lw=0, label="filled: batch-norm re-estimated for the path"),
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


def place_labels(panel: Axes, labels: Sequence[Label]) -> None:
    """Write each name where it covers no mark, line or other name, or else the least; far ones get a leader.

    Works in points (1/72 inch), in which a figure looks the same in every format.
    """
    from matplotlib.transforms import Bbox

    scale = 72 / DPI
    dots = [panel.transData.transform((label.x, label.y)) * scale for label in labels]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    for line in panel.lines:
        points = panel.transData.transform(line.get_xydata()) * scale
        (left, low), (right, high) = points.min(0) - 2, points.max(0) + 2
        taken.append(Bbox.from_extents(left, low, right, high))
    inside = Bbox.from_extents(*(v * scale for v in panel.get_window_extent().extents))
    for label, (px, py) in sorted(zip(labels, dots, strict=True), key=lambda pair: (not pair[0].strong, pair[0].y)):
        text = panel.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9 if label.strong else 8,
            fontweight="bold" if label.strong else "normal",
            color=label.colour,
        )
        width, height = (v * scale for v in text.get_window_extent().size)
        best, best_cost = (0.0, 0.0), float("inf")
        for dx, dy in _offsets(width, height):
            at = Bbox.from_bounds(px + dx - width / 2, py + dy - height / 2, width, height)
            covered = sum(_overlap(at, other) for other in taken)
            outside = width * height - _overlap(at, inside)
            cost = covered + 4 * outside + 0.05 * (dx * dx + dy * dy) ** 0.5
            if cost < best_cost:
                best, best_cost = (dx, dy), cost
        text.set_position(best)
        taken.append(Bbox.from_bounds(px + best[0] - width / 2, py + best[1] - height / 2, width, height))
        if abs(best[0]) > 0.5 * width + 9 or abs(best[1]) > 0.5 * height + 9:
            panel.annotate(
                "",
                (label.x, label.y),
                xytext=best,
                textcoords="offset points",
                arrowprops={
                    "arrowstyle": "-",
                    "lw": 0.5,
                    "color": label.colour,
                    "alpha": 0.6,
                    "shrinkA": 1,
                    "shrinkB": 4,
                },
            )


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Centres to try, in points from the mark: right, left, above, below, the corners, and farther out."""
    found = []
    for step in range(5):
        up, side = height * (0.5 + step) + 5, width * 0.5 + 6 + 10 * step
        found += [(side, 0.0), (-side, 0.0), (0.0, up), (0.0, -up)]
        found += [(sx * side * 0.9, sy * up) for sx in (1, -1) for sy in (1, -1)]
    return found


def _overlap(a: Any, b: Any) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return width * height if width > 0 and height > 0 else 0.0
