"""The style of all Matplotlib figures, and the function that saves them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypath.storage.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#8e5ea2", "#c9822b", "#4a4a4a")
GREY = "#8a8a8a"
MARKERS = ("o", "s", "^", "D", "v", "P")
DPI = 150


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return an empty figure of this size in inches. No display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def canvas(
    width: float = 7.2, height: float = 4.4, panels: int = 1, *, title: str = "", **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, side by side, with a light grid. ``shared`` contains options of the panels such
    as ``sharey=True``."""
    figure = new_figure(width, height, title)
    axes = list(figure.subplots(1, panels, squeeze=False, **shared)[0])
    for axis in axes:
        tidy(axis)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Draw a light grid behind the marks, and remove the frame at the top and the right."""
    axes.grid(True, lw=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, columns: int = 4) -> None:
    """Draw one legend under all panels, with each label once. Draw no legend if there are no labels."""
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(columns, len(handles)),
            frameon=False,
            fontsize=8,
        )


def save_figure(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into ``folder``, each atomically."""
    written = []
    for kind in ("png", "svg"):
        target = Path(folder) / f"{name}.{kind}"
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=DPI, metadata=metadata)
        write_file(target, drawn.getvalue())
        written.append(target)
    return written
