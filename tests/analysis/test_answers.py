"""Analyses of given logits agree with values computed by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from polypath.analysis.agreement import diversity, pairwise_agreement
from polypath.analysis.answers import stacked
from polypath.analysis.calibration import calibration_table, reliability
from polypath.analysis.components import leave_one_out, shared_and_separate
from polypath.analysis.galleries import easy_and_hard_by_paths, pixels
from polypath.analysis.importance import importance, unique_to


def saying(*answers: int, classes: int = 3, sure: float = 4.0) -> torch.Tensor:
    """Logits with these answers, all with the same confidence."""
    z = torch.zeros(len(answers), classes)
    z[torch.arange(len(answers)), torch.tensor(answers)] = sure
    return z


LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
A = saying(0, 0, 0, 0, 1, 1, 0, 0)  # right on the first six
B = saying(0, 0, 0, 1, 1, 0, 1, 0)  # right on 0, 1, 2, 4, 6
C = saying(2, 2, 2, 2, 2, 2, 2, 2)  # never right


# --- agreement -----------------------------------------------------------------------------------------------


def test_a_pair_by_hand():
    # N11: 0, 1, 2, 4; N10: 3, 5; N01: 6; N00: 7
    row = pairwise_agreement({"a": A, "b": B}, LABELS).iloc[0]
    assert (row["a"], row["b"]) == ("a", "b")
    assert row["disagreement"] == 100 * 3 / 8  # images 3, 5, 6
    assert row["one_right"] == 100 * 3 / 8
    assert row["double_fault"] == 100 * 1 / 8
    assert row["same_fault"] == 100 * 1 / 8  # image 7, both say 0
    assert row["q"] == pytest.approx((4 * 1 - 1 * 2) / (4 * 1 + 1 * 2))
    assert row["correlation"] == pytest.approx((4 - 2) / math.sqrt(6 * 2 * 5 * 3))


def test_other_wrong_answers_disagree_and_are_no_same_fault():
    row = pairwise_agreement({"a": A, "c": C}, LABELS).iloc[0]
    assert row["disagreement"] == 100.0
    assert row["one_right"] == 75.0
    assert (row["double_fault"], row["same_fault"]) == (25.0, 0.0)
    assert math.isnan(row["q"])  # 0 of 0: the other one is never right
    assert math.isnan(row["correlation"])


def test_the_q_of_equal_and_of_opposed_paths():
    opposed = saying(1, 1, 1, 1, 0, 0, 1, 1)  # right exactly where A is wrong
    assert pairwise_agreement({"a": A, "b": A.clone()}, LABELS)["q"].item() == 1.0
    assert pairwise_agreement({"a": A, "b": opposed}, LABELS)["q"].item() == -1.0


def test_diversity_of_three():
    row = diversity({"a": A, "b": B, "c": C}, LABELS).iloc[0]
    assert row["members"] == 3
    assert row["mean_error"] == pytest.approx((25 + 37.5 + 100) / 3)
    assert row["best_error"] == 25.0
    assert row["oracle"] == 100 / 8  # image 7
    assert row["disagreement"] == pytest.approx((37.5 + 100 + 100) / 3)
    # images with one or two right among three have entropy 1; here all but the last
    assert row["entropy"] == pytest.approx(7 / 8)
    assert diversity({"a": A, "b": A.clone()}, LABELS)["entropy"].item() == 0.0


# --- components ----------------------------------------------------------------------------------------------


def test_leaving_one_out_by_hand():
    strong = saying(0, 1, 1, sure=6.0)
    weak = {"x": saying(0, 0, 1, sure=2.0), "y": saying(1, 0, 1, sure=2.0)}
    labels = torch.tensor([0, 0, 1])
    # alone: strong errs on image 1, x never, y on image 0; together strong outvotes the two on image 1
    frame = leave_one_out({"strong": strong, **weak}, labels).set_index("left_out")
    assert list(frame.index) == ["none", "strong", "x", "y"]
    p_weak, p_strong = math.exp(2) / (math.exp(2) + 2), math.exp(6) / (math.exp(6) + 2)
    assert p_strong + 2 * (1 - p_weak) / 2 < 2 * p_weak + (1 - p_strong) / 2  # so the two win on image 1 after all
    assert frame.loc["none", "error"] == 0.0
    assert list(frame["members"]) == [3, 2, 2, 2]
    assert frame.loc["strong", "error"] == 0.0  # x and y tie on image 0, and arg-max takes the first class
    assert frame.loc["x", "error"] == pytest.approx(100 / 3)
    assert frame.loc["x", "change"] == pytest.approx(100 / 3)
    assert frame.loc["strong", "own_error"] == pytest.approx(100 / 3)
    with pytest.raises(ValueError, match="at least two"):
        leave_one_out({"a": A}, LABELS)


def test_shared_beside_separate():
    frame = shared_and_separate({"x": A, "y": B}, {"y": A, "x": C}, LABELS).set_index("component")
    assert list(frame.index) == ["x", "y", "mean", "ensemble"]
    assert list(frame.loc["x"]) == [25.0, 100.0, -75.0]
    assert list(frame.loc["y"]) == [37.5, 25.0, 12.5]
    assert frame.loc["mean", "shared"] == pytest.approx((25 + 37.5) / 2)
    with pytest.raises(ValueError, match="'z' is only in shared or only in separate"):
        shared_and_separate({"x": A}, {"x": A, "z": B}, LABELS)


# --- importance ----------------------------------------------------------------------------------------------


def test_importance_by_hand():
    frame = importance(A, {"b": B, "c": C, "same": A.clone()}, LABELS).set_index("dropped")
    assert list(frame["increase"]) == [12.5, 75.0, 0.0]
    assert frame.loc["b", ["changed", "broken", "mended"]].to_list() == [37.5, 25.0, 12.5]
    # losses: +1 on two images, -1 on one, 0 on five
    assert frame.loc["b", "standard_error"] == pytest.approx(100 * math.sqrt(3 / 8 - 1 / 64) / math.sqrt(8))
    assert frame.loc["same", "standard_error"] == 0.0


def test_what_one_path_alone_knows():
    frame = unique_to({"a": A, "b": B, "c": C}, LABELS).set_index("path")
    assert list(frame["only_right"]) == [25.0, 12.5, 0.0]


# --- calibration ---------------------------------------------------------------------------------------------


def sure(*probabilities: float) -> torch.Tensor:
    """Logits of two classes that give the first these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_the_table_fits_on_the_held_out_images_alone():
    z, labels = torch.tensor([[2.0, 0.0]]).expand(4, 2), torch.tensor([0, 0, 1, 1])
    held_out = torch.tensor([0, 0, 0, 1])
    row = calibration_table({"p": z}, labels, {"p": z}, held_out).iloc[0]
    assert row["temperature"] == pytest.approx(2.0 / math.log(3), rel=1e-6)
    assert row["ece_fitted"] == pytest.approx(25.0, abs=1e-4)  # says 3/4, right 1/2
    top = math.exp(2) / (math.exp(2) + 1)
    assert row["ece"] == pytest.approx(100 * (top - 0.5), abs=1e-4)
    assert row["confidence"] == pytest.approx(100 * top)
    assert row["nll"] == pytest.approx(-(math.log(top) + math.log(1 - top)) / 2)
    assert row["nll_fitted"] == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, rel=1e-6)
    assert all(calibration_table({"p": z}, labels)["temperature"].isna())
    with pytest.raises(ValueError, match="both arguments or neither"):
        calibration_table({"p": z}, labels, {"p": z})
    with pytest.raises(ValueError, match="held_out: the logits of path 'p' are missing"):
        calibration_table({"p": z}, labels, {"q": z}, held_out)


def test_reliability_by_hand():
    frame = reliability({"p": sure(0.6, 0.6, 0.9, 0.99)}, torch.tensor([0, 1, 0, 1]), bins=4)
    assert list(frame["images"]) == [0, 0, 2, 2]
    assert list(frame["high"]) == [0.25, 0.5, 0.75, 1.0]
    assert list(frame["accuracy"][2:]) == [0.5, 0.5]
    assert list(frame["confidence"][2:]) == pytest.approx([0.6, 0.945])
    assert all(map(math.isnan, frame["accuracy"][:2]))
    flat = reliability({"p": sure(0.6, 0.9)}, torch.tensor([0, 0]), bins=4, temperature=1e6)
    assert list(flat["images"]) == [0, 0, 2, 0]  # a hair above 1/2, and the bin (0.25, 0.5] has none
    with pytest.raises(ValueError, match="bins = 0"):
        reliability({"p": A}, LABELS, bins=0)


# --- galleries -----------------------------------------------------------------------------------------------


def test_easy_images_are_the_short_paths_surest_and_hard_ones_the_whole_nets_alone():
    labels = torch.tensor([0, 0, 0, 1])
    short, whole = sure(0.6, 0.9, 0.2, 0.7), sure(0.9, 0.9, 0.8, 0.6)
    frame = easy_and_hard_by_paths(short, whole, labels)
    easy, hard = frame[frame["kind"] == "easy"], frame[frame["kind"] == "hard"]
    assert list(easy["image"]) == [1, 0]
    assert list(easy["value"]) == pytest.approx([0.9, 0.6])
    assert list(hard["image"]) == [2]  # image 3 is wrong for both
    assert hard["value"].item() == pytest.approx(0.6)
    assert hard["answer"].item() == 1
    assert len(easy_and_hard_by_paths(short, whole, labels, count=1)) == 2
    spread = easy_and_hard_by_paths(sure(0.9, 0.8, 0.3), whole[:3], torch.tensor([0, 0, 1]), count=2, spread=True)
    assert list(spread.loc[spread["kind"] == "easy", "image"]) == [0, 2]  # image 1 is surer, its class has been shown
    with pytest.raises(ValueError, match="count = 0"):
        easy_and_hard_by_paths(short, whole, labels, count=0)


def test_pixels_of_stored_and_of_normalised_images():
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    assert pixels(stored, [2, 1]).tolist() == [[[[255] * 3]], [[[51] * 3]]]
    normalised = (stored.float() / 255 - 0.5) / 0.25
    assert pixels(normalised, [2, 1], (0.5,), (0.25,)).tolist() == [[[[255] * 3]], [[[51] * 3]]]


# --- illegal values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "labels", "why"),
    [
        ({}, LABELS, "at least one path"),
        ({"a": A, "b": B[:4]}, LABELS, "logits of 'b'"),
        ({"a": A}, LABELS[:4], r"labels have shape \(4,\)"),
        ({"a": A}, LABELS + 2, "labels are 2 to 3: must be between 0 and 2"),
        ({"a": A[:0]}, LABELS[:0], "at least one"),
    ],
)
def test_logits_that_do_not_fit_are_refused(logits, labels, why):
    with pytest.raises(ValueError, match=why):
        stacked(logits, labels)


def test_every_analysis_is_a_frame():
    both = {"a": A, "b": B}
    frames = [pairwise_agreement(both, LABELS), diversity(both, LABELS), leave_one_out(both, LABELS)]
    frames += [importance(A, both, LABELS), calibration_table(both, LABELS), reliability(both, LABELS)]
    assert all(isinstance(frame, pd.DataFrame) and len(frame) for frame in frames)
