"""The figure of a result: error against milliseconds, a line for each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polypath.analysis.plots.style import COLOURS, MARKERS, canvas, legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def front_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the test error of each point, averaged over the seeds, against its median milliseconds. If nothing was
    timed, draw the error against MACs."""
    data, points = result["data"], result["points"]
    timed = all(row["p50_ms"] is not None for row in points)
    title = f"{result['pflop']:g} PFLOP a method: {data['images']:,} test images of {data['name']}"
    figure, (axis,) = canvas(7.6, 5.0, title=title)
    for i, method in enumerate(dict.fromkeys(row["method"] for row in points)):
        along = {(row["p50_ms"] if timed else row["macs"] / 1e6): row for row in points if row["method"] == method}
        rows = [along[at] for at in sorted(along)]
        errors = [row["error"] for row in rows]
        ends = [[e - min(r["errors"]) for e, r in zip(errors, rows, strict=True)]]
        ends.append([max(r["errors"]) - e for e, r in zip(errors, rows, strict=True)])
        look: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "label": method,
        }
        axis.errorbar(sorted(along), errors, ends, ls="-" if i < len(COLOURS) else "--", lw=1.2, ms=5.5, **look)
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds for one image on one thread (median)" if timed else "MACs for one image (millions)")
    axis.set_ylabel("test error (%), from the lowest to the highest seed")
    legend_below(figure)
    return figure
