"""Errors of several kinds for each item, with whiskers of one standard deviation (DFN's Tables 2 and 3 as figures)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polypath.analysis.plots.paths import COLOURS, MARKERS
from polypath.reproduce.figures import Draw, canvas
from polypath.reproduce.papers.drawing import below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result


def grouped(keys: Sequence[str], kinds: Mapping[str, str], ticks: Sequence[str]) -> Draw:
    """``keys`` are those of the errors, with ``{kind}`` and ``{row}`` to be filled in; ``ticks`` name them."""

    def draw(result: Result) -> Figure:
        pattern = re.compile(re.escape(keys[-1]).replace(r"\{kind\}", ".*").replace(r"\{row\}", r"(\d+)"))
        rows = sorted({int(m[1]) for key in result.errors if (m := pattern.fullmatch(key))})
        figure, axes = canvas(
            width=max(5.0, 0.62 * len(keys) + 1.2) * max(1, len(rows)), height=4.2, panels=max(1, len(rows))
        )
        wide = 0.8 / len(kinds)
        for axis, row in zip(axes, rows, strict=False):
            for i, (kind, label) in enumerate(kinds.items()):
                full = [key.format(kind=kind, row=row) for key in keys]
                at = [n + (i - (len(kinds) - 1) / 2) * wide for n in range(len(full))]
                axis.errorbar(
                    at, [result.mean(k) for k in full], [result.std(k) or 0.0 for k in full], fmt=MARKERS[i],
                    color=COLOURS[i], label=label, ms=5.5, lw=1.2, capsize=2.5,
                )  # fmt: skip
                marks = [
                    (x, p) for x, k in zip(at, full, strict=True) if isinstance(p := result.published.get(k), float)
                ]
                if marks:
                    shown = "published" if i == 0 else None
                    axis.plot([x for x, _ in marks], [p for _, p in marks], "D", color="0.15", ms=4, ls="", label=shown)
            axis.set_xticks(range(len(ticks)), list(ticks), rotation=30, fontsize=8)
            axis.set_ylabel("test error (%)")
            axis.set_title(f"depth {row}", fontsize=9)
            axis.grid(False, axis="x")
        below(figure, result)
        return figure

    return draw
