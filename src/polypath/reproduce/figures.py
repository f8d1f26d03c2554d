"""Figures of results, in the papers' forms: bars of errors, lines over epochs or depths, errors against costs.

This module turns results into series; :mod:`polypath.analysis.plots` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from polypath.analysis.plots.marks import Mark
from polypath.analysis.plots.parts import Value, mean_curve, name_marks, side_by_side
from polypath.analysis.plots.style import COLOURS, canvas, legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result

Draw = Callable[["Result"], "Figure"]


def error_bars(result: Result) -> Figure:
    """Draw a horizontal bar for each key: the mean test error, with a whisker of one standard deviation over seeds, and
    a mark at the printed number. If there are no errors, draw the scalars and counts."""
    return bars()(result)


def bars(keys: Sequence[str] | None = None, label: str = "test error (%)") -> Draw:
    """Return a function that draws bars of these keys. The default is all errors or, if there are none, all scalars and
    counts."""

    def draw(result: Result) -> Figure:
        shown = [k for k in keys if known(result, k)] if keys is not None else list(result.errors)
        what = label if shown else "value"
        shown = shown or [*result.values, *result.counts]
        figure, (axis,) = canvas(height=1.4 + 0.3 * len(shown))
        measured = "measured, ± std over seeds" if len(result.seeds) > 1 else "measured"
        values = {row: value_of(result, key) for row, key in enumerate(shown)}
        side_by_side(axis, shown, {measured: values}, kind="barh")
        axis.set_xlabel(what)
        return finish(figure, result, columns=3)

    return draw


def grouped_bars(groups: Mapping[str, str], parts: Mapping[str, str], label: str = "test error (%)") -> Draw:
    """Return a function that draws bars in groups. A key has two parts. ``groups`` maps each group's name to one part
    of the key, and ``parts`` maps each bar's label to the other part. This other part is a prefix if it ends in ``/``
    or a blank, else a suffix."""

    def key_of(group: str, part: str) -> str:
        return f"{part}{group}" if part.endswith(("/", " ")) else f"{group}{part}"

    def draw(result: Result) -> Figure:
        figure, (axis,) = canvas(height=1.6 + 0.2 * len(groups) * len(parts))
        series = {}
        for part, end in parts.items():
            keys = {row: key_of(start, end) for row, start in enumerate(groups.values())}
            series[part] = {
                row: value_of(result, key)._replace(printed=None) for row, key in keys.items() if known(result, key)
            }
        side_by_side(axis, list(groups), series, kind="barh")
        axis.set_xlabel(f"{label}, ± std over seeds" if len(result.seeds) > 1 else label)
        return finish(figure, result, columns=3)

    return draw


def lines(
    keys: Sequence[str] | Mapping[str, str],
    xlabel: str = "epoch",
    ylabel: str = "test error (%)",
    log: bool = False,
) -> Draw:
    """Return a function that draws a line for each key of ``curves``: the mean over seeds, within a band from the
    lowest to the highest seed. If ``keys`` is a mapping, its values are the labels of the lines."""
    labels = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}

    def draw(result: Result) -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure, (axis,) = canvas()
        for i, (key, text) in enumerate((k, t) for k, t in labels.items() if k in result.curves):
            mean_curve(axis, result.curves[key], text, i)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if log:
            axis.set_yscale("log")
        return finish(figure, result, columns=3)

    return draw


def against(costs: Mapping[str, tuple[str, str]], keys: Sequence[str] | None = None) -> Draw:
    """Return a function that draws error against cost, in one panel for each of ``costs``. This maps the cost's label
    to a pair: the suffix of the cost's keys, and the unit."""

    def draw(result: Result) -> Figure:
        shown = [k for k in (keys or result.errors) if k in result.errors]
        figure, axes = canvas(width=5.2 * len(costs), height=4.6, panels=len(costs))
        for axis, (label, (end, unit)) in zip(axes, costs.items(), strict=True):
            marks = []
            for key in (k for k in shown if known(result, f"{k}{end}")):
                x, y, name = result.mean(f"{key}{end}"), result.mean(key), key.partition("=")[2] or key
                axis.errorbar([x], [y], [result.std(key) or 0.0], fmt="o", color=COLOURS[0], ms=5, lw=1, capsize=2)
                marks.append(Mark(x=x, y=y, label=name, strong=key == "whole"))
            axis.margins(x=0.15, y=0.15)
            name_marks(axis, [(mark, COLOURS[0]) for mark in marks])
            axis.set_xlabel(f"{label} ({unit})")
            axis.set_ylabel("test error (%)")
            axis.set_xlim(left=0)
        return finish(figure, result)

    return draw


def finish(figure: Figure, result: Result, columns: int = 4) -> Figure:
    """Add the title, and one legend below all panels."""
    figure.suptitle(title(result), fontsize=10)
    legend_below(figure, columns)
    return figure


def title(result: Result) -> str:
    """Return a title: the experiment, its place in the paper, its scale and its number of seeds."""
    n = len(result.seeds)
    seeds = f", {n} seed{'s' if n != 1 else ''}" if n else ""
    return f"{result.experiment} ({result.place}), scale {result.scale}{seeds}"


def known(result: Result, key: str) -> bool:
    """Return whether the result has a number for this key."""
    return any(key in found for found in (result.errors, result.values, result.counts))


def value_of(result: Result, key: str) -> Value:
    """Return a key's mean over seeds, its standard deviation and the printed number."""
    printed = result.published.get(key)
    return Value(result.mean(key), result.std(key), printed if isinstance(printed, float | int) else None)
