"""Claims over a table's rows, on numbers written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from polypath.reproduce.papers.rows import (
    SETTING,
    always,
    beats_best,
    beats_printed,
    gap_grows,
    gaps,
    on_average,
    rows_of,
    slope,
)

ERRORS = {"plain 14": 30.0, "plain 26": 36.0, "ResNet 14": 29.0, "ResNet 26": 27.0, "ResNet 26 C100": 60.0}


def test_rows_are_read_from_keys_and_end_with_their_dataset():
    assert rows_of(ERRORS, "ResNet") == {14: 29.0, 26: 27.0}
    assert rows_of(ERRORS, "ResNet", "C100") == {26: 60.0}
    assert gaps(ERRORS, "plain", "ResNet") == {14: 1.0, 26: 9.0}
    with pytest.raises(KeyError, match="DFN-MR"):
        gaps(ERRORS, "plain", "DFN-MR")


def test_always_takes_the_smallest_gap_and_on_average_the_mean():
    assert always("id", "plain", "ResNet", "").statistic(ERRORS) == 1.0
    assert always("id", "plain", "ResNet", "", by=2.0).statistic(ERRORS) == -1.0
    assert on_average("id", "plain", "ResNet", "").statistic(ERRORS) == 5.0


def test_slopes_have_the_sign_of_what_is_claimed():
    assert slope("id", "plain", "", falls=False).statistic(ERRORS) == pytest.approx(0.5)
    assert slope("id", "plain", "", falls=True).statistic(ERRORS) == pytest.approx(-0.5)
    assert gap_grows("id", "plain", "ResNet", "").statistic(ERRORS) == pytest.approx(8 / 12)
    with pytest.raises(KeyError, match="two rows"):
        slope("id", "plain", "", falls=True, least=20).statistic(ERRORS)


def test_draws_of_a_bootstrap_pass_through():
    draws = {key: np.array([value, value + 1.0]) for key, value in ERRORS.items()}
    assert always("id", "plain", "ResNet", "").statistic(draws).tolist() == [1.0, 1.0]
    assert slope("id", "plain", "", falls=False).statistic(draws) == pytest.approx([0.5, 0.5])


def test_printed_numbers_of_others_are_asked_for_at_the_published_setting_alone():
    claim = beats_printed("id", "GUNN-15", 4.17, "WRN-28-10", "")
    with pytest.raises(KeyError, match="published setting"):
        claim.statistic({"GUNN-15": 50.0})
    assert claim.statistic({"GUNN-15": 4.0, "GUNN-15 at the published setting": 1.0}) == pytest.approx(0.17)


def test_the_best_competitor_is_read_from_the_printed_table():
    claim = beats_best("a", "ours", "gunn/table3", "C10", lambda r: "GUNN" not in r["method"], "all competitors")
    assert claim.text == "all competitors (best: 3.44)"
    assert claim.says == "printed error of Snapshot Ensemble (3.44) minus error of `ours`"
    ours = {f"ours{SETTING}": 1.0}
    assert claim.statistic({"ours": 3.45, **ours}) < 0 < claim.statistic({"ours": 3.43, **ours})
    with pytest.raises(KeyError):
        claim.statistic({"ours": 3.0})
