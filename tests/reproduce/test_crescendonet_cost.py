"""The CrescendoNet paper's statements on costs, counted."""

from __future__ import annotations

import pytest

from polypath.reproduce.papers.crescendonet import COST


def test_two_branches_take_less_than_a_fourth_of_the_computation() -> None:
    assert COST.counts is not None
    counts = COST.counts("paper")
    assert counts["branches=1,2 share of MACs"] == pytest.approx(0.22917, abs=1e-5)
    assert counts["branches=1 share of MACs"] == pytest.approx(0.04724, abs=1e-5)
