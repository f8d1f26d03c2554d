"""Answers of ensembles, and counts: the memory of training, expected loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from polypath.families.crescendonet import CrescendoNet
from polypath.families.gunn import Gunn
from polypath.reproduce.members import average, without
from polypath.reproduce.memory import gradients_by_phase
from polypath.reproduce.papers.drnn import loops_expected
from polypath.reproduce.papers.gunn import training_memory
from polypath.reproduce.papers.shapes import millions, shapes

PROBABILITIES = {"A": [[0.9, 0.1]], "B": [[0.2, 0.8]], "C": [[0.3, 0.7]]}
MEMBERS = {name: torch.tensor(of, dtype=torch.float64).log() for name, of in PROBABILITIES.items()}


def test_ensembles_average_probabilities_and_leave_members_out():
    assert average(MEMBERS).tolist() == [[pytest.approx(1.4 / 3), pytest.approx(1.6 / 3)]]
    assert average(MEMBERS).argmax(1).item() == 1
    assert without(MEMBERS, "C").tolist() == [[pytest.approx(0.55), pytest.approx(0.45)]]
    assert average(MEMBERS, ["A", "B"]).equal(without(MEMBERS, "C"))


def test_gradual_updates_hold_as_much_for_training_as_simultaneous_ones_and_less_than_the_reference():
    spec = Gunn(channels=(8, 8), segments=(4, 4), stem_width=4, last_width=8)
    held = {
        "GUNN": training_memory(spec.build(), 4, 8),
        "SUNN": training_memory(replace(spec, order="simultaneous").build(), 4, 8),
        "reference": training_memory(replace(spec, backward="reference").build(), 4, 8),
    }
    assert held["GUNN"] == pytest.approx(held["SUNN"])
    assert held["reference"] > 1.05 * held["GUNN"]


def test_memory_of_training_grows_with_the_images_by_what_they_hold():
    spec = Gunn(channels=(8, 8), segments=(4, 4), stem_width=4, last_width=8)
    weights = 3 * 4 * millions(spec) / 1e3
    one, two = training_memory(spec.build(), 4, 8), training_memory(spec.build(), 8, 8)
    assert two - weights == pytest.approx(2 * (one - weights), rel=0.02)


def test_the_longest_path_of_a_block_has_four_of_ten_equal_convs():
    """CrescendoNet §II-B says "about 40% for a Crescendo block with four paths"; a net whose widths grow has more."""
    block = gradients_by_phase(shapes(CrescendoNet()), "block2.")
    assert list(block.values()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    whole = gradients_by_phase(shapes(CrescendoNet(widths=(128, 256, 512), final_map=4)))
    assert whole["branch 4: gradients"] == pytest.approx(0.440, abs=5e-4)
    assert sum(whole.values()) == pytest.approx(1.0)


def test_a_lower_rate_with_more_loops_expected_stands_beside_more_loops():
    """DRNN §4.2: DR-ResNet 53 at 0.65 "has a larger expected total loop time" than DR-ResNet 47."""
    loops = {name.removesuffix(" expected loops"): n for name, n in loops_expected().items()}
    assert loops["DR-ResNet 53, t = 0.65"] == pytest.approx(10.502, abs=1e-3)
    assert loops["DR-ResNet 47"] == pytest.approx(10.055, abs=1e-3)
    assert loops["DR-ResNet 53, t = 0.6"] < loops["DR-ResNet 47"] < loops["DR-ResNet 53, t = 0.65"]
    assert loops["DR-ResNet 53"] == pytest.approx(11.921)
