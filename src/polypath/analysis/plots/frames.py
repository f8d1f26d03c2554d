"""Functions that draw the data frames of analyses. :func:`polypath.analysis.plots.style.save_figure` saves a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from polypath.analysis.plots.style import COLOURS, GREY, MARKERS, canvas, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 60  # largest number of row names that is legible


def draw_subnetworks(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.subnetworks.subnetwork_table`: the error of each path. Filled marks are errors
    with recalibrated batch-norm, hollow marks are errors without recalibration."""
    again = _some(frame, "error_recalibrated")
    marks = {"error": ("batch-norm as trained", again), "error_recalibrated": ("batch-norm recalibrated", False)}
    shown = {c: of for c, of in marks.items() if c == "error" or again}
    return _dots(frame, "path", shown, "top-1 error (%)", title)


def draw_leave_one_out(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.components.leave_one_out`: the ensemble's error without each component. A line
    marks the error with all components."""
    rest, whole = frame.iloc[1:], float(frame["error"].iloc[0])
    figure = _dots(rest, "left_out", {"error": ("ensemble without it", False)}, "top-1 error (%)", title)
    figure.axes[0].axvline(whole, color=GREY, lw=1, ls="--", label=f"all {int(frame['members'].iloc[0])}")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def draw_shared_and_separate(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.components.shared_and_separate`: errors with shared and with separate weights,
    for each component and for the ensembles."""
    marks = {"shared": ("one set of weights", True), "separate": ("separate weights", False)}
    return _dots(frame, "component", marks, "top-1 error (%)", title)


def draw_calibration(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.calibration.calibration_table`: calibration error with and without temperature."""
    fitted = _some(frame, "ece_fitted")
    marks = {"ece": ("as trained", fitted)} | ({"ece_fitted": ("temperature fitted", False)} if fitted else {})
    return _dots(frame, "path", marks, "expected calibration error (%)", title)


def draw_importance(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.importance.importance`: the increase of the error without each part, with whiskers
    of two standard errors."""
    marks = {"increase": ("increase", False)}
    label = "increase of top-1 error without it (points)"
    figure = _dots(frame, "dropped", marks, label, title, [2 * e for e in frame["standard_error"].to_list()])
    axes = figure.axes[0]
    (axes.axvline if len(frame) <= MOST_NAMES else axes.axhline)(0.0, color=GREY, lw=1)
    return figure


def draw_agreement(frame: pd.DataFrame, measures: Sequence[str] = ("disagreement", "q"), title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.agreement.pairwise_agreement`: a matrix of all pairs for each of ``measures``."""
    names = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    side = max(2.6, 0.42 * len(names) + 1.2)
    figure = new_figure(side * 1.25 * len(measures), side + 0.8, title)
    for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        table = pd.DataFrame(float("nan"), index=names, columns=names)
        for a, b, value in zip(frame["a"], frame["b"], frame[measure], strict=True):
            table.loc[a, b] = table.loc[b, a] = value
        shown = axes.imshow(table.to_numpy(), cmap="viridis")
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title("Q-statistic" if measure == "q" else measure.replace("_", " "), fontsize=10)
        if len(names) <= 12:
            _write(axes, table)
        figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=8)
    return figure


def draw_confusion(counts: Mapping[str, Tensor], classes: Sequence[str] = (), title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.confusion.confusion`: a confusion matrix for each path. Rows are true classes,
    columns are predicted classes. A cell's shade is its share of the row's images."""
    side = max(len(next(iter(counts.values()))), 1)
    names = list(classes) or [str(i) for i in range(side)]
    figure = new_figure((0.32 * side + 1.6) * len(counts), 0.32 * side + 1.4, title)
    for axes, (name, of) in zip(figure.subplots(1, len(counts), squeeze=False)[0], counts.items(), strict=True):
        axes.imshow((of / of.sum(1, keepdim=True).clamp_min(1)).numpy(), cmap="Blues", vmin=0, vmax=1)
        if side <= MOST_NAMES:
            axes.set_xticks(range(side), names, rotation=90, fontsize=7)
            axes.set_yticks(range(side), names, fontsize=7)
        axes.set(xlabel="answer", ylabel="truth")
        axes.set_title(name, fontsize=10)
    return figure


def draw_reliability(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.calibration.reliability`: accuracy against confidence, in a panel for each path.
    Bars show the share of images in each bin."""
    groups = _groups(frame, "path")
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure = new_figure(2.7 * columns + 0.4, 2.6 * rows + 0.4, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, of) in zip(panels, groups, strict=False):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        share = of["images"] / max(1, of["images"].sum())
        axes.bar(of["low"], share, of["high"] - of["low"], align="edge", color=COLOURS[0], alpha=0.25)
        some = of[of["images"] > 0]
        axes.plot(some["confidence"], some["accuracy"], "o-", color=COLOURS[0], ms=3.5, lw=1.2)
        axes.set_title(name, fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        tidy(axes)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    figure.supxlabel("confidence", fontsize=10)
    figure.supylabel("accuracy (line), share of images (bars)", fontsize=10)
    return figure


def draw_depths(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.depths.depths`: the number of paths of each depth, in a colour for each network.
    The scale is logarithmic if there are many paths."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, (axes,) = canvas(7.2, 4.2, title=title)
    groups = _groups(frame, "net")
    many = max(frame["log10"].to_list()) > 3
    named = len(groups) > 1
    for i, (name, of) in enumerate(groups):
        heights = of["log10"] if many else of["paths"].astype(float)
        colour, width = COLOURS[i % len(COLOURS)], 0.8
        if named:
            axes.plot(of["depth"], heights, "-", color=colour, marker=MARKERS[i % len(MARKERS)], ms=4, label=name)
        else:
            axes.bar(of["depth"], heights, width, color=colour)
    axes.set_xlabel("depth (layers)")
    axes.set_ylabel("paths")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if many:  # counts may overflow a float, so their logarithms are drawn
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:g}}}$"))
    if named:
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_loops(frame: pd.DataFrame, expected: float | None = None, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.loops.loop_histogram`: the number of images for each number of loops, with the
    mean and the ``expected`` number of loops."""
    figure, (axes,) = canvas(7.2, 4.0, title=title)
    axes.bar(frame["loops"], 100 * frame["share"], 0.85, color=COLOURS[0])
    mean = float(frame["loops"].to_numpy() @ frame["share"].to_numpy())
    axes.axvline(mean, color=COLOURS[1], lw=1.2, label=f"mean {mean:.2f}")
    if expected is not None:
        axes.axvline(expected, color=GREY, lw=1.2, ls="--", label=f"on target {expected:.2f}")
    axes.set_xlabel("loops that an image takes")
    axes.set_ylabel("images (%)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_gates(frame: pd.DataFrame, target: float | None = None, title: str = "") -> Figure:
    """Draw the gates of :func:`~polypath.analysis.loops.loops_taken`: the images that each gate passes, as a share of
    the images that reach the gate (marks) and of all images (bars)."""
    figure, (axes,) = canvas(max(5.0, 0.32 * len(frame) + 2), 4.0, title=title)
    places = range(len(frame))
    axes.bar(places, 100 * frame["share"], 0.8, color=COLOURS[0], alpha=0.35, label="of all images")
    axes.plot(places, 100 * frame["rate"], "o", color=COLOURS[0], label="of those that reach it")
    if target is not None:
        axes.axhline(100 * target, color=GREY, lw=1, ls="--", label="target")
    names = [
        f"{switch.removesuffix('.join')}:{loop}" for switch, loop in zip(frame["switch"], frame["loop"], strict=True)
    ]
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_ylabel("passed (%)")
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_gallery(frame: pd.DataFrame, images: Tensor, classes: Sequence[str] = (), title: str = "") -> Figure:
    """Draw a frame of :mod:`~polypath.analysis.galleries`: a row of images of each kind. ``images`` are all images of
    the data, as uint8 ``(N, C, H, W)``."""
    from polypath.analysis.galleries import pixels

    kinds = list(dict.fromkeys(frame["kind"]))
    columns = max([1, *(rank + 1 for rank in frame["rank"].to_list())])
    figure = new_figure(0.95 * columns + 0.6, 1.3 * max(1, len(kinds)) + 0.3, title)
    panels = figure.subplots(max(1, len(kinds)), columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for row, kind in zip(panels, kinds, strict=False):
        of = frame[frame["kind"] == kind]
        for axes, label, value, picture in zip(
            row, of["label"], of["value"], pixels(images, of["image"].tolist()), strict=False
        ):
            axes.imshow(picture.numpy(), interpolation="nearest")
            name = classes[label] if len(classes) else str(label)
            axes.set_title(f"{name}\n{value:g}" if float(value).is_integer() else f"{name}\n{value:.2f}", fontsize=7)
        row[0].text(-0.25, 0.5, kind, rotation=90, va="center", ha="right", transform=row[0].transAxes, fontsize=9)
    return figure


def draw_similarity(pairs: Mapping[str, pd.DataFrame] | pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.similarity.channel_pairs` of one network, or of several networks by name:
    histograms of the similarity within a segment (filled) and across segments (line)."""
    frames = pairs if isinstance(pairs, Mapping) else {"": pairs}
    figure, panels = canvas(3.6 * len(frames) + 0.6, 3.6, len(frames), title=title, sharey=True)
    bins = [i / 40 for i in range(41)]
    for axes, (name, of) in zip(panels, frames.items(), strict=True):
        options: dict[str, Any] = {"bins": bins, "density": True}
        inside, similar = of["within"].to_numpy(dtype=bool), of["similarity"].to_numpy()
        if inside.any():
            axes.hist(similar[inside], color=COLOURS[0], alpha=0.5, label="within a segment", **options)
        if (~inside).any():
            axes.hist(similar[~inside], histtype="step", color=COLOURS[1], lw=1.4, label="across segments", **options)
        axes.set(xlim=(0, 1), xlabel="similarity of two channels")
        axes.set_title(str(name), fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("density of pairs")
    return figure


def draw_spectrum(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw :func:`~polypath.analysis.similarity.spectrum`: eigenvalues as shares of their sum, and their cumulative
    sum."""
    figure, (left, right) = canvas(9.6, 3.8, 2, title=title)
    for i, (name, of) in enumerate(_groups(frame, "layer")):
        colour = COLOURS[i % len(COLOURS)]
        some = of[of["share"] > 1e-12]
        left.semilogy(some["rank"], some["share"], color=colour, lw=1.4, label=name)
        right.plot(of["rank"], 100 * of["cumulative"], color=colour, lw=1.4)
    left.set(xlabel="rank", ylabel="share of the variance")
    right.set(xlabel="rank", ylabel="cumulative share (%)", ylim=(0, 101))
    if len(_groups(frame, "layer")) > 1:
        left.legend(frameon=False, fontsize=8)
    return figure


def _dots(
    frame: pd.DataFrame,
    names: str,
    marks: Mapping[str, tuple[str, bool]],
    label: str,
    title: str,
    errors: Sequence[float] | None = None,
) -> Figure:
    """Draw marks of several columns, with a row for each name. If there are too many names, they are omitted, and rows
    are along the x axis."""
    lying = len(frame) <= MOST_NAMES
    figure, (axes,) = canvas(7.2, max(2.2, 0.24 * len(frame) + 1.2) if lying else 4.2, title=title)
    places = range(len(frame))
    for i, (column, (text, hollow)) in enumerate(marks.items()):
        options: dict[str, Any] = {"color": COLOURS[i], "label": text, "ms": 5 if lying else 3, "ls": ""}
        options |= {"marker": MARKERS[i], **({"mfc": "white"} if hollow else {})}
        values = frame[column].to_numpy(dtype=float)
        if lying:
            axes.errorbar(values, places, xerr=errors, **options)
        else:
            axes.errorbar(places, values, yerr=errors, **options)
    if lying:
        axes.set_yticks(places, [str(n) for n in frame[names]], fontsize=8)
        axes.set_ylim(len(frame) - 0.4, -0.6)
    (axes.set_xlabel if lying else axes.set_ylabel)(label)
    if not lying:
        axes.set_xlabel(f"{len(frame)} rows, in order")
    if len(marks) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _some(frame: pd.DataFrame, column: str) -> bool:
    return bool(frame[column].notna().to_numpy().any())


def _groups(frame: pd.DataFrame, column: str) -> list[tuple[str, Any]]:
    return [(str(name), of) for name, of in frame.groupby(column, sort=False)]


def _write(axes: Axes, table: pd.DataFrame) -> None:
    values = table.to_numpy()
    middle = (pd.Series(values.ravel()).min() + pd.Series(values.ravel()).max()) / 2
    for i in range(len(table)):
        for j in range(len(table)):
            if values[i, j] == values[i, j]:
                text = f"{values[i, j]:.2f}" if abs(values[i, j]) < 10 else f"{values[i, j]:.1f}"
                colour = "black" if values[i, j] > middle else "white"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
