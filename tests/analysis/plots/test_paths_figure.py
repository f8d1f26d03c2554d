"""Figures show the values of the rows, and are legible."""

from __future__ import annotations

import dataclasses
import random

import matplotlib.image
import numpy as np
import pytest

from polypath.analysis.plots.marks import short_names
from polypath.analysis.plots.paths import path_figure
from polypath.analysis.plots.style import save_figure
from polypath.analysis.scoring import PathRow

NAMES = [
    "whole",
    "branches=2,3,4",
    "branches=3,4",
    "branches=2,4",
    "branches=4",
    "branches=3",
    "branches=2",
    "branches=1",
]


def rows(seed: int = 0, timed: bool = True) -> list[PathRow]:
    rng = random.Random(seed)
    made = []
    for i, name in enumerate(NAMES):
        error = 30 + 3 * i + rng.uniform(-2, 2)
        share = (len(NAMES) - i) / len(NAMES)
        row = PathRow(
            name=name,
            paths=name,
            error=error + 4,
            error_recalibrated=error,
            params=1000,
            macs=int(40e6 * share),
            activation_bytes=10,
            depth=12,
            p50_ms=6 * share if timed else None,
            p95_ms=7 * share if timed else None,
        )
        made.append(row)
    return made


def written(panel) -> list[str]:
    return [text.get_text() for text in panel.texts if text.get_text()]


def test_two_panels_with_every_path_named():
    figure = path_figure({"mine": rows(), "rival": [dataclasses.replace(rows(1)[0])]})
    macs, latency = figure.axes
    assert "MACs" in macs.get_xlabel()
    assert "latency" in latency.get_xlabel()
    for panel in figure.axes:
        assert sorted(written(panel)) == sorted(["whole", *(n.partition("=")[2] for n in NAMES[1:]), "rival"])
    drawn = [np.atleast_2d(line.get_xydata()) for line in latency.lines]
    points = {tuple(xy[0]) for xy in drawn if len(xy) == 1}
    assert {(r.p50_ms, r.error_recalibrated) for r in rows()} <= points
    whiskers = [list(xy[:, 0]) for xy in drawn if len(xy) == 2]
    assert all([r.p50_ms, r.p95_ms] in whiskers for r in rows())


def test_without_latency_there_is_one_panel():
    assert len(path_figure({"mine": rows(timed=False)}).axes) == 1


def test_rivals_have_a_colour_of_their_own():
    figure = path_figure({"mine": rows(), "rival": rows(1)})
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts if text.get_text()}
    assert colours["whole"] != colours["rival"]
    assert colours["whole"] == colours["1"]


@pytest.mark.parametrize("seed", range(3))
def test_names_do_not_cover_each_other(seed):
    figure = path_figure({"mine": rows(seed), "a long name of a rival": rows(seed + 7)[:1]})
    figure.canvas.draw()
    for panel in figure.axes:
        boxes = [text.get_window_extent() for text in panel.texts if text.get_text()]
        assert len(boxes) == len(NAMES) + 1
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        inside = panel.get_window_extent()
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 + 1 for box in boxes)


def test_saved_whole_as_png_and_svg(tmp_path):
    files = save_figure(path_figure({"mine": rows()}), tmp_path, "paths")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["paths.png", "paths.svg"] == sorted(f.name for f in files)
    picture = matplotlib.image.imread(tmp_path / "paths.png")
    assert picture.shape[0] > 600
    assert picture.std() > 0.05
    assert "<svg" in (tmp_path / "paths.svg").read_text()


def test_short_names():
    assert short_names(rows())["branches=2,4"] == "2,4"
    mixed = [dataclasses.replace(rows()[1], name=name) for name in ("whole", "column=1", "route=RL")]
    assert short_names(mixed)["route=RL"] == "route=RL"
