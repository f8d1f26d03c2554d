"""The contents of a report. All analyses run here, before the page is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from polypath.analysis.agreement import diversity, pairwise_agreement
from polypath.analysis.answers import Answers, answers
from polypath.analysis.calibration import calibration_table, reliability
from polypath.analysis.depths import depths
from polypath.analysis.galleries import easy_and_hard_by_loops, easy_and_hard_by_paths, pixels
from polypath.analysis.importance import importance_table, without_each
from polypath.analysis.loops import Loops, loop_histogram, loops_taken
from polypath.analysis.report.classes import Classes, cams, of_classes, rows_of
from polypath.analysis.report.pictures import Gallery, Picture, png
from polypath.analysis.similarity import channel_moments, segments_of, similarity_table, spectrum
from polypath.analysis.tables import PathTable
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.wiring import Wiring
from polypath.data.batches import Part
from polypath.profiling.cost import cost

LEAST_IMAGES = 200  # with fewer images, an analysis is left out
BUDGET = 300e9  # multiply-adds allowed for an analysis on a CPU: about a minute on one core
CHANNEL_IMAGES = 256

Feed = Callable[[Part, int, int], Iterable[Sequence[Tensor]]]
"""A function ``feed(part, most, looks)`` that returns batches of ``(images, labels)``: at most ``most`` evenly spaced
images of a part. ``looks`` is the number of errors that will be measured on them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The contents of a report. Parts that do not apply to the network, or that would take too long, are None or empty.
    ``notes`` gives the reasons.

    Attributes:
        title: the run's name.
        facts: the table at the top, by name.
        notes: caveats.
        wiring, paths: the diagram and the choices that can be highlighted in it.
        table: errors and costs.
        curves: rows of the run's metrics.
        images: number of test images in the analyses of answers.
        held_out: description of the images on which temperatures were fitted.
        classes: errors by class, and confusion.
        recipe, sessions: the recipe's fields, and the environment of each session.
    """

    title: str
    facts: dict[str, str]
    notes: list[str]
    wiring: Wiring
    paths: dict[str, Paths]
    table: PathTable
    curves: list[dict[str, Any]]
    images: int = 0
    held_out: str = ""
    calibration: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    classes: Classes | None = None
    agreement: pd.DataFrame | None = None
    diversity: pd.DataFrame | None = None
    importance: pd.DataFrame | None = None
    importance_images: int = 0
    depths: pd.DataFrame
    loops: pd.DataFrame | None = None
    gates: pd.DataFrame | None = None
    channels: pd.DataFrame | None = None
    spectrum: pd.DataFrame | None = None
    galleries: list[Gallery] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)


@torch.no_grad()
def analysed(
    net: PathNet,
    paths: Mapping[str, Paths],
    feed: Feed,
    stored: Callable[[Sequence[int], int], Tensor],
    *,
    classes: Sequence[str],
    size: tuple[int, int],
    held_out: bool,
    stats: BatchNormStatistics | None = None,
    views: int = 1,
    most: int = 2000,
    budget: float = BUDGET,
) -> dict[str, Any]:
    """Analyse a network. Return fields of :class:`Report`, including ``notes``.

    Args:
        feed: a function that returns the images.
        stored: a function ``stored(places, most)`` that returns the stored images at these indices of
            ``feed("test", most, 0)``.
        held_out: whether there is a part ``validation`` to fit temperatures on. Otherwise, half of the test images are
            used for this.
        stats: recalibrated statistics of ``paths``; used only if they cover all paths.
        most: largest number of test images for each analysis.
        budget: multiply-adds allowed for each analysis.
    """
    notes: list[str] = []
    stats = stats if stats is not None and all(p in stats for p in paths.values()) else None
    if stats is not None:
        notes.append(f"calibration, agreement and galleries: batch-norm is recalibrated on {stats.images:,} images")
    found: dict[str, Any] = {"depths": depths(net.wiring), "galleries": [], "notes": notes}
    spent = {name: cost(net, p, size).macs * views for name, p in paths.items()}
    count = _affordable(sum(spent.values()), most, budget)
    if count:
        scored = answers(net, paths, feed("test", count, len(paths)), stats=stats, views=views)
        step = 1 if held_out else 2  # without held-out images, temperatures are fitted on every second test image
        if held_out:
            fitting = answers(net, paths, feed("validation", count, len(paths)), stats=stats, views=views)
            found["held_out"] = f"{len(fitting.labels):,} held-out images"
        else:
            fitting, scored = scored.rows(slice(1, None, 2)), scored.rows(slice(0, None, 2))
            found["held_out"] = f"{len(fitting.labels):,} other test images (every second one)"
        found["images"] = len(scored.labels)
        found |= _of_answers(scored, fitting)

        names = sorted(spent, key=lambda name: (name != "whole", -spent[name]))

        def shown(rows: Sequence[int]) -> Tensor:
            return stored([step * i for i in rows], count)

        def inputs(rows: Sequence[int]) -> Tensor:
            return rows_of(feed("test", count, 0), [step * i for i in rows]).to(next(net.parameters()).device)

        found["classes"] = of_classes(scored, names, shown, classes)
        if len(names) > 1:
            found["galleries"] += _by_paths(names[-1], scored, shown, classes)
        if views > 1:
            notes.append("Grad-CAM is left out: each prediction is the mean over several crops")
        else:
            both = {name: paths[name] for name in dict.fromkeys((names[-1], "whole"))}
            try:
                found["galleries"].append(cams(net, both, scored, shown, inputs, classes, stats))
            except ValueError as error:
                notes.append(f"Grad-CAM is left out: {error}")
    else:
        missing = "classes, calibration, agreement and galleries are left out"
        notes.append(f"{missing}: running all paths on enough images takes too long here")
    found |= _importance(net, feed, size, views, most, budget, notes)
    if any(join.gates for join in net.wiring.joins.values()):
        count = _affordable(spent.get("whole", 1), most, budget)
        if count and views == 1:
            taken = loops_taken(net, feed("test", count, 1))
            found |= {"loops": loop_histogram(taken.images["loops"], taken.most, taken.images["right"])}
            found |= {"gates": taken.gates}
            found["galleries"] += _by_loops(taken, lambda places: stored(places, count), classes)
    if layers := segments_of(net):
        moments = channel_moments(net, feed("test", min(most, CHANNEL_IMAGES), 1))
        found |= {"channels": similarity_table(moments, layers), "spectrum": spectrum(moments)}
    return found


def _affordable(macs: float, most: int, budget: float) -> int:
    """Return the number of images that the budget allows; 0 if they are too few."""
    count = min(most, int(budget / max(1.0, macs)))
    return count if count >= min(most, LEAST_IMAGES) else 0


def _of_answers(scored: Answers, fitting: Answers) -> dict[str, Any]:
    found: dict[str, Any] = {
        "calibration": calibration_table(scored.logits, scored.labels, fitting.logits, fitting.labels),
        "reliability": reliability(scored.logits, scored.labels, bins=10),
    }
    if len(scored.logits) > 1:
        found["agreement"] = pairwise_agreement(scored.logits, scored.labels)
        found["diversity"] = diversity(scored.logits, scored.labels)
    return found


def _importance(
    net: PathNet, feed: Feed, size: tuple[int, int], views: int, most: int, budget: float, notes: list[str]
) -> dict[str, Any]:
    parts = without_each(net.wiring)
    if not parts:
        return {}
    count = _affordable((1 + len(parts)) * views * cost(net, size=size).macs, most, budget)
    if not count:
        notes.append(
            f"importance is left out: running the network without each of {len(parts)} parts takes too long here"
        )
        return {}
    frame = importance_table(net, feed("test", count, 1 + len(parts)), parts, views=views)
    return {"importance": frame, "importance_images": frame.attrs["images"]}


def _by_paths(
    least: str,
    scored: Answers,
    stored: Callable[[Sequence[int]], Tensor],
    classes: Sequence[str],
) -> list[Gallery]:
    frame = easy_and_hard_by_paths(scored.logits[least], scored.logits["whole"], scored.labels, spread=True)
    texts = {
        "easy": ("Easy", f"that the path {least} classifies correctly, with its probability of the true class"),
        "hard": (
            "Hard",
            f"that the whole network classifies correctly but {least} does not, with the increase of the true class's "
            "probability",
        ),
    }
    return _galleries(frame, texts, stored, classes, "{:.2f}")


def _by_loops(taken: Loops, stored: Callable[[Sequence[int]], Tensor], classes: Sequence[str]) -> list[Gallery]:
    texts = {
        "easy": ("Fewest loops", "classified correctly with the fewest loops, class by class"),
        "hard": ("Most loops", "classified correctly with the most loops, class by class"),
    }
    return _galleries(easy_and_hard_by_loops(taken, spread=True), texts, stored, classes, "{:.0f} loops")


def _galleries(
    frame: pd.DataFrame,
    texts: Mapping[str, tuple[str, str]],
    stored: Callable[[Sequence[int]], Tensor],
    classes: Sequence[str],
    form: str,
) -> list[Gallery]:
    found = []
    for kind, (title, text) in texts.items():
        rows = frame.loc[frame["kind"] == kind].to_dict("records")
        shown = pixels(stored([row["image"] for row in rows]), range(len(rows))) if rows else []
        pictures = []
        for row, picture in zip(rows, shown, strict=True):
            truth, answer = classes[row["label"]], classes[row["answer"]]
            said = "" if row["answer"] == row["label"] else f" ({answer}?)"
            pictures.append(
                Picture(
                    source=png(picture),
                    about=f"test image, {truth}{said}",
                    caption=f"{truth}{said} · {form.format(row['value'])}",
                )
            )
        found.append(Gallery(title=title, text=text, pictures=pictures))
    return found
