"""A chart's data, before it is drawn with Matplotlib or as SVG: series of marks, and the paths of runs as series."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from polypath.analysis.scoring import PathRow
from polypath.core.display import short_macs

COLOURS = 6  # series take them in turn


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point.

    Attributes:
        x, y: its position.
        label: the text beside it.
        about: its tooltip.
        path: the path that it belongs to, for pages that highlight one.
        to_x: the end of a whisker to the right.
        from_y: the position of a hollow twin.
        strong: whether it is larger and its label bold.
        state: for the style of a page: ``late``, ``chosen``.
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
    """Marks of one colour: ``dots``, ``line``, ``dashed``, ``stairs``, ``bars`` (1 wide) or ``columns`` (0.1 wide)."""

    name: str
    kind: str
    marks: Sequence[Mark]
    colour: int = 1


class CostAxis(NamedTuple):
    """A cost of paths as an axis; ``to`` gives the end of the whisker."""

    label: str
    at: Callable[[PathRow], float | None]
    to: Callable[[PathRow], float | None]


MACS = CostAxis("MACs of one image (millions)", lambda row: row.macs / 1e6, lambda row: None)
LATENCY = CostAxis("measured latency (ms): p50, whisker to p95", lambda row: row.p50_ms, lambda row: row.p95_ms)


def error_against(axis: CostAxis, runs: Mapping[str, Sequence[PathRow]]) -> list[Series]:
    """Dots of every path of each run that has this cost: error against cost.

    The first run is the subject; the labels of the others, its rivals, begin with the run's name. Errors are with
    recalibrated batch-norm if measured; errors with the network's own batch-norm are then hollow twins.
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
    """Names without the key that all names but ``whole`` share (``branches=1,3`` becomes ``1,3``)."""
    if shared_key(rows) is None:
        return {row.name: row.name for row in rows}
    return {row.name: row.name.partition("=")[2] or row.name for row in rows}


def shared_key(rows: Sequence[PathRow]) -> str | None:
    """The key that the names of all paths but ``whole`` share, if there is one."""
    keys = {row.name.partition("=")[0] for row in rows if row.name != "whole"}
    return keys.pop() if len(keys) == 1 else None


def front(marks: Sequence[Mark], *, upper: bool = False) -> list[Mark]:
    """The marks that no other beats in both ``x`` and ``y``, sorted by ``x``. Smaller is better; with ``upper``, a
    larger ``y``."""
    sign = -1.0 if upper else 1.0
    found, best = [], math.inf
    for mark in sorted(marks, key=lambda mark: (mark.x, sign * mark.y)):
        if sign * mark.y < best:
            found.append(mark)
            best = sign * mark.y
    return found


def named_front(series: Series) -> Series:
    """The series with labels only on its front and on strong marks."""
    best = front(series.marks)
    return replace(series, marks=[m if m in best or m.strong else replace(m, label="") for m in series.marks])
