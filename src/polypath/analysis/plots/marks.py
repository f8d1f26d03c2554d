"""The data of a chart for Matplotlib or SVG: series of marks, and functions that make series of the paths of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from polypath.analysis.scoring import PathRow
from polypath.core.display import short_macs

COLOURS = 6  # series use these colours in turn


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a chart.

    Attributes:
        x, y: position of the mark.
        label: text beside the mark.
        about: tooltip of the mark.
        path: the path that the mark belongs to, so that a page can highlight the mark.
        to_x: the end of a whisker to the right.
        from_y: y of the hollow twin, which shows a second value of the same path.
        strong: whether the mark is larger and its label bold.
        state: ``late`` or ``chosen``, shown by the page's style.
    """

    x: float
    y: float
    label: str = ""
    about: str = ""
    path: str = ""
    to_x: float | None = None
    from_y: float | None = None
    strong: bool = False
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of marks in one colour: ``dots``, ``line``, ``dashed``, ``stairs``, ``bars`` (1 wide) or ``columns``
    (0.1 wide)."""

    name: str
    kind: str
    marks: Sequence[Mark]
    colour: int = 1


class CostAxis(NamedTuple):
    """An axis for a cost of paths. ``at`` returns a path's cost, and ``to`` returns the end of its whisker."""

    label: str
    at: Callable[[PathRow], float | None]
    to: Callable[[PathRow], float | None]


MACS = CostAxis("MACs of one image (millions)", lambda row: row.macs / 1e6, lambda row: None)
LATENCY = CostAxis("measured latency (ms): p50, whisker to p95", lambda row: row.p50_ms, lambda row: row.p95_ms)


def error_against(axis: CostAxis, runs: Mapping[str, Sequence[PathRow]]) -> list[Series]:
    """Return a series of dots for each run: error against cost, of every path for which this cost is known.

    The first run is the subject. The others are its rivals; their labels begin with the run's name. If errors with
    recalibrated batch-norm were measured, dots show them, and hollow twins show the errors with the network's own
    batch-norm.
    """
    found = []
    for i, (run, rows) in enumerate(runs.items()):
        short, marks = short_names(rows), []
        for row in rows:
            x, whole = axis.at(row), row.name == "whole"
            if x is None:
                continue
            label = short[row.name] if i == 0 else run if whole else f"{run}: {row.name}"
            latency = "" if row.p50_ms is None else f", {row.p50_ms:.2f} ms"
            marks.append(
                Mark(
                    x=x,
                    y=row.best_error,
                    label=label,
                    about=f"{label}: {row.best_error:.2f}%, {short_macs(row.macs)} MACs{latency}",
                    path=row.name if i == 0 else "",
                    to_x=axis.to(row),
                    from_y=row.error if row.error_recalibrated is not None else None,
                    strong=whole,
                )
            )
        found.append(Series(name=run, kind="dots", marks=marks, colour=i % COLOURS + 1))
    return found


def short_names(rows: Sequence[PathRow]) -> dict[str, str]:
    """Return the paths' names without the key that all names except ``whole`` share (``branches=1,3`` becomes
    ``1,3``)."""
    if shared_key(rows) is None:
        return {row.name: row.name for row in rows}
    return {row.name: row.name.partition("=")[2] or row.name for row in rows}


def shared_key(rows: Sequence[PathRow]) -> str | None:
    """Return the key that the names of all paths except ``whole`` share, or None if there is no such key."""
    keys = {row.name.partition("=")[0] for row in rows if row.name != "whole"}
    return keys.pop() if len(keys) == 1 else None


def front(marks: Sequence[Mark], *, upper: bool = False) -> list[Mark]:
    """Return the marks that no other mark beats in both ``x`` and ``y``, sorted by ``x``. Smaller values are better;
    with ``upper``, larger values of ``y`` are better."""
    sign = -1.0 if upper else 1.0
    found, best = [], math.inf
    for mark in sorted(marks, key=lambda mark: (mark.x, sign * mark.y)):
        if sign * mark.y < best:
            found.append(mark)
            best = sign * mark.y
    return found


def named_front(series: Series) -> Series:
    """Return the series with labels only on the marks of its front and on strong marks."""
    best = front(series.marks)
    return replace(series, marks=[m if m in best or m.strong else replace(m, label="") for m in series.marks])
