"""Every registered experiment runs at ``smoke``, and its other scales can be built."""

from __future__ import annotations

import pytest

from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.runner import reproduce
from polypath.reproduce.store import load_result


@pytest.mark.parametrize("name", list_experiments())
def test_it_runs_and_all_claims_are_judged(name, tmp_path):
    experiment = get_experiment(name)
    result = reproduce(experiment, "smoke", out=tmp_path / "out")
    assert result.errors or result.values or result.counts
    assert len(result.verdicts) == len(experiment.claims)
    assert all(v.word == "undecided" for v in result.verdicts if v.seeds == 1)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"result.json", "result.md", "figure.png", "figure.svg"}
    assert load_result(tmp_path / "out").to_json() == result.to_json()


@pytest.mark.parametrize("name", list_experiments())
def test_every_scale_says_what_it_changes_and_wants_several_seeds(name):
    experiment = get_experiment(name)
    assert "smoke" in experiment.scales
    for scale in experiment.scales:
        plan = experiment.scale(scale)
        assert plan.changes or scale == "paper"
        assert plan.seeds >= 3 or scale == "smoke"
        assert plan.arms or experiment.counts is not None
