"""Figures of results, in the papers' forms: bars of errors, lines along training or depth, error against cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.analysis.plots.paths import COLOURS, DPI, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result

Draw = Callable[["Result"], "Figure"]


def canvas(width: float = 7.2, height: float = 4.4, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.grid(True, lw=0.4, alpha=0.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    return figure, axes


def error_bars(result: Result) -> Figure:
    """A horizontal bar a key: mean test error, whisker of one standard deviation over seeds, printed number as a mark.
    Where there are no errors, the scalars or counts."""
    return bars()(result)


def bars(keys: Sequence[str] | None = None, label: str = "test error (%)") -> Draw:
    """Bars of these keys, by default of all errors (or, without such, of all scalars and counts)."""

    def draw(result: Result) -> Figure:
        shown = [k for k in keys if _known(result, k)] if keys is not None else list(result.errors)
        what = label if shown else "value"
        shown = shown or [*result.values, *result.counts]
        figure, (axis,) = canvas(height=1.4 + 0.3 * len(shown))
        rows = range(len(shown))
        means = [result.mean(key) for key in shown]
        axis.barh(
            rows,
            means,
            xerr=_spread(result, shown),
            color=COLOURS[0],
            height=0.62,
            error_kw={"lw": 1.1, "capsize": 2.5, "ecolor": "0.25"},
            label="measured, ± std over seeds" if len(result.seeds) > 1 else "measured",
        )
        marks = [
            (row, p)
            for row, key in zip(rows, shown, strict=True)
            if isinstance(p := result.published.get(key), float | int)
        ]
        if marks:
            axis.plot(
                [p for _, p in marks], [row for row, _ in marks], "D", color=COLOURS[1], ms=5, label="published", ls=""
            )
        axis.set_yticks(rows, shown)
        axis.invert_yaxis()
        axis.set_xlabel(what)
        axis.grid(False, axis="y")
        _finish(figure, axis, result)
        return figure

    return draw


def grouped_bars(groups: Mapping[str, str], parts: Mapping[str, str], label: str = "test error (%)") -> Draw:
    """Bars in groups: ``groups`` gives each group's name and its part of the keys, ``parts`` the label and the other
    part of each bar's key, a beginning where it ends in ``/`` or a blank, else an end."""

    def key_of(group: str, part: str) -> str:
        return f"{part}{group}" if part.endswith(("/", " ")) else f"{group}{part}"

    def draw(result: Result) -> Figure:
        figure, (axis,) = canvas(height=1.6 + 0.2 * len(groups) * len(parts))
        height = 0.8 / len(parts)
        for i, (part, end) in enumerate(parts.items()):
            found = [(row, key_of(start, end)) for row, start in enumerate(groups.values())]
            found = [(row + (i - (len(parts) - 1) / 2) * height, key) for row, key in found if _known(result, key)]
            axis.barh(
                [row for row, _ in found],
                [result.mean(key) for _, key in found],
                xerr=_spread(result, [key for _, key in found]),
                height=height * 0.92,
                color=COLOURS[i % len(COLOURS)],
                error_kw={"lw": 0.9, "capsize": 1.5, "ecolor": "0.25"},
                label=part,
            )
        axis.set_yticks(range(len(groups)), list(groups))
        axis.invert_yaxis()
        axis.set_xlabel(f"{label}, ± std over seeds" if len(result.seeds) > 1 else label)
        axis.grid(False, axis="y")
        _finish(figure, axis, result)
        return figure

    return draw


def lines(
    keys: Sequence[str] | Mapping[str, str],
    xlabel: str = "epoch",
    ylabel: str = "test error (%)",
    log: bool = False,
) -> Draw:
    """A line a key (or key: label) of ``curves``: mean over seeds, a band from the lowest to the highest."""
    labels = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}

    def draw(result: Result) -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure, (axis,) = canvas()
        for i, (key, text) in enumerate((k, t) for k, t in labels.items() if k in result.curves):
            along(axis, result.curves[key], text, i)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if log:
            axis.set_yscale("log")
        _finish(figure, axis, result)
        return figure

    return draw


def along(axis: Axes, seeds: Sequence[Sequence[tuple[float, float]]], label: str, i: int) -> None:
    """Draw one curve of several seeds: the mean, and a band from the lowest to the highest."""
    length = min(map(len, seeds), default=0)
    if not length:
        return
    x = [point[0] for point in seeds[0][:length]]
    y = np.array([[point[1] for point in line[:length]] for line in seeds], dtype=float)
    colour = COLOURS[i % len(COLOURS)]
    dashes: Any = "-" if i < len(COLOURS) else "--"
    axis.plot(x, y.mean(0), dashes, color=colour, marker=MARKERS[i % len(MARKERS)], ms=3.5, lw=1.4, label=label)
    if len(y) > 1:
        axis.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, lw=0)


def against(costs: Mapping[str, tuple[str, str]], keys: Sequence[str] | None = None) -> Draw:
    """Error against what it costs: a panel for each of ``costs``, label to (end of the scalar's key, unit)."""

    def draw(result: Result) -> Figure:
        shown = [k for k in (keys or result.errors) if k in result.errors]
        figure, axes = canvas(width=5.2 * len(costs), height=4.6, panels=len(costs))
        for axis, (label, (end, unit)) in zip(axes, costs.items(), strict=True):
            points = [
                (result.mean(f"{key}{end}"), result.mean(key), key) for key in shown if _known(result, f"{key}{end}")
            ]
            for x, y, key in points:
                axis.errorbar([x], [y], [result.std(key) or 0.0], fmt="o", color=COLOURS[0], ms=5, lw=1, capsize=2)
            name_points(axis, points)
            axis.set_xlabel(f"{label} ({unit})")
            axis.set_ylabel("test error (%)")
            axis.set_xlim(left=0)
        figure.suptitle(_title(result), fontsize=10)
        return figure

    return draw


def name_points(axis: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points where they cover no other one."""
    from polypath.analysis.plots.paths import Label, place_labels

    axis.margins(x=0.15, y=0.15)
    assert axis.figure is not None
    axis.figure.canvas.draw()
    place_labels(
        axis, [Label(x, y, name.partition("=")[2] or name, COLOURS[0], name == "whole") for x, y, name in points]
    )


def _spread(result: Result, keys: Sequence[str]) -> list[float] | None:
    """One standard deviation a key; None where a single seed or a count has none."""
    return [result.std(key) or 0.0 for key in keys] if len(result.seeds) > 1 else None


def _finish(figure: Figure, axis: Axes, result: Result) -> None:
    figure.suptitle(_title(result), fontsize=10)
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False, fontsize=8)


def _title(result: Result) -> str:
    n = len(result.seeds)
    seeds = f", {n} seed{'s' if n != 1 else ''}" if n else ""
    return f"{result.experiment} ({result.place}), scale {result.scale}{seeds}"


def _known(result: Result, key: str) -> bool:
    return any(key in found for found in (result.errors, result.values, result.counts))
