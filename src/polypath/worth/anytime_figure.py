"""Draws the figure of a bench: error against milliseconds, and the share of requests answered correctly and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polypath.analysis.plots.style import COLOURS, MARKERS, canvas, legend_below
from polypath.worth.anytime_result import AnytimeResult
from polypath.worth.compare import WAYS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"rule": "by the rule", "fixed": "best fixed option", "times": "oracle of times", "oracle": "oracle"}


def anytime_figure(result: AnytimeResult) -> Figure:
    """Plot the error of each method's options against their median milliseconds. In a second panel, plot the share of
    requests answered correctly and in time, with its interval, for each way to choose an option."""
    title = f"{result.protocol}: {result.images:,} test images of {result.data}, {result.requests:,} requests"
    if result.departures:
        title += "\ndepartures from the protocol: " + "; ".join(result.departures)
    figure, (left, right) = canvas(12.0, 5.0, 2, title=title)
    for i, method in enumerate(result.methods):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        ms, errors = [o.p50_ms for o in method.options], [o.error for o in method.options]
        left.plot(ms, errors, "-", marker=marker, color=colour, ms=6, label=method.name)
        shares = [100 * method.ways[way].value for way in WAYS]
        below = [100 * (method.ways[way].value - method.ways[way].low) for way in WAYS]
        above = [100 * (method.ways[way].high - method.ways[way].value) for way in WAYS]
        at = [j + (i - (len(result.methods) - 1) / 2) * 0.8 / len(result.methods) for j in range(len(WAYS))]
        right.errorbar(at, shares, [below, above], fmt=marker, color=colour, ms=6, lw=1.2, capsize=2.5)
    left.set_xscale("log")
    left.set_xlabel("milliseconds for one image (median, one thread)")
    left.set_ylabel("test error (%)")
    right.set_xticks(range(len(WAYS)), [NAMES[way] for way in WAYS])
    right.set_ylabel("requests answered correctly and in time (%)")
    legend_below(figure)
    return figure
