"""Figures show the values of their frames."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import polypath as pp
from polypath.analysis.agreement import pairwise_agreement
from polypath.analysis.calibration import calibration_table, reliability
from polypath.analysis.components import leave_one_out, shared_and_separate
from polypath.analysis.confusion import confusion
from polypath.analysis.depths import depths
from polypath.analysis.importance import importance
from polypath.analysis.loops import loop_histogram
from polypath.analysis.plots import frames
from polypath.analysis.similarity import Moments, channel_pairs, spectrum

G = torch.Generator().manual_seed(2)
LABELS = torch.randint(4, (60,), generator=G)
LOGITS = {f"branches={k}": torch.randn(60, 4, generator=G) + torch.eye(4)[LABELS] for k in "123"}
PAIRS = channel_pairs(Moments.of(torch.randn(40, 6, generator=G)), segments=2)
GATES = pd.DataFrame(
    {"switch": ["a.join", "b.join"], "loop": ["1", "1"], "rate": [0.5, float("nan")], "share": [0.5, 0.0]}
)
GALLERY = pd.DataFrame(
    {"kind": ["easy", "easy", "hard"], "rank": [0, 1, 0], "image": [4, 2, 7], "label": [0, 1, 3], "value": [1, 2, 0.5]}
)
SUBNETS = pd.DataFrame({"path": ["whole", "b"], "error": [3.0, 9.0], "error_recalibrated": [2.0, 5.0]})

FIGURES = {
    "subnetworks": lambda: frames.draw_subnetworks(SUBNETS),
    "leave one out": lambda: frames.draw_leave_one_out(leave_one_out(LOGITS, LABELS), "without one"),
    "shared": lambda: frames.draw_shared_and_separate(shared_and_separate(LOGITS, LOGITS, LABELS)),
    "calibration": lambda: frames.draw_calibration(calibration_table(LOGITS, LABELS, LOGITS, LABELS)),
    "reliability": lambda: frames.draw_reliability(reliability(LOGITS, LABELS)),
    "importance": lambda: frames.draw_importance(importance(LOGITS["branches=1"], LOGITS, LABELS)),
    "agreement": lambda: frames.draw_agreement(pairwise_agreement(LOGITS, LABELS)),
    "confusion": lambda: frames.draw_confusion(confusion(LOGITS, LABELS), ["a", "b", "c", "d"]),
    "depths": lambda: frames.draw_depths(depths(pp.create_model("resnet110_cifar"))),
    "loops": lambda: frames.draw_loops(loop_histogram([0, 2, 2, 3], 4), expected=2.5),
    "gates": lambda: frames.draw_gates(GATES, target=0.7),
    "gallery": lambda: frames.draw_gallery(GALLERY, torch.randint(255, (9, 1, 8, 8)).byte(), ["a", "b", "c", "d"]),
    "similarity": lambda: frames.draw_similarity({"GUNN": PAIRS, "SUNN": PAIRS}),
    "spectrum": lambda: frames.draw_spectrum(spectrum(Moments.of(torch.randn(40, 6, generator=G)))),
}


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_drawn(made, name):
    figure = made[name]
    figure.canvas.draw()
    assert any(axes.has_data() for axes in figure.axes)


def ticks(axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_rows_are_named_and_where_they_belong(made):
    axes = made["subnetworks"].axes[0]
    assert ticks(axes) == ["whole", "b"]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_ls() == "None"] == [[3.0, 9.0], [2.0, 5.0]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_counts_beyond_floats_are_drawn_by_their_logarithm(made):
    axes = made["depths"].axes[0]
    assert max(bar.get_height() for bar in axes.patches) == pytest.approx(15.29, abs=0.01)  # lg of 54 over 27
    assert len(axes.patches) == 55


def test_a_reliability_panel_for_each_path(made):
    panels = [axes for axes in made["reliability"].axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == list(LOGITS)


def test_the_square_of_pairs_is_symmetric(made):
    shown = made["agreement"].axes[0].images[0].get_array()
    frame = pairwise_agreement(LOGITS, LABELS)
    assert shown[0, 2] == shown[2, 0] == frame["disagreement"].iloc[1]


def test_a_confusion_square_is_shaded_by_the_rows_shares(made):
    panel = made["confusion"].axes[1]
    counts = confusion(LOGITS, LABELS)["branches=2"]
    assert panel.get_title() == "branches=2"
    drawn = panel.images[0].get_array().tolist()
    assert [sum(row) for row in drawn] == pytest.approx([1.0] * 4)
    assert drawn[2][1] == pytest.approx(float(counts[2, 1] / counts[2].sum()))
    assert ticks(panel) == ["a", "b", "c", "d"]


def test_gallery_shows_the_images_that_the_frame_names(made):
    pictures = [axes for axes in made["gallery"].axes if axes.images]
    assert [axes.get_title() for axes in pictures] == ["a\n1", "b\n2", "d\n0.50"]


def test_many_rows_lose_their_names_and_are_still_drawn():
    frame = pd.DataFrame({"dropped": range(200), "increase": 1.0, "standard_error": 0.1})
    figure = frames.draw_importance(frame)
    assert "200 rows" in figure.axes[0].get_xlabel()
    assert figure.get_figheight() < 6
