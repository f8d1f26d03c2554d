"""Every registered experiment runs at ``smoke``, and its other scales can be built."""

from __future__ import annotations

import math

import pytest

from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.runner import reproduce
from polypath.reproduce.store import load_result

JUDGED = {
    "crescendonet/table1": 7,
    "crescendonet/table2": 8,
    "crescendonet/table2-c10": 5,
    "crescendonet/table2-c100": 5,
    "crescendonet/table2-c100+": 5,
    "crescendonet/table2-svhn": 5,
    "crescendonet/cost": 1,
    "crescendonet/figure3": 8,
    "crescendonet/figure4": 3,
    "crescendonet/memory": 4,
    "fractalnet/table1": 7,
    "fractalnet/table2": 1,
    "fractalnet/table3": 1,
    "fractalnet/table4": 5,
    "fractalnet/figure3": 0,
    "fractalnet/anytime": 3,
    "fractalnet/suspects": 8,
    "dfn/fig2": 3,
    "dfn/table1": 3,
    "dfn/fig4": 5,
    "dfn/table4": 8,
    "dfn/table5": 4,
    "dfn/fig12": 2,
    "dfn/table2": 4,
    "dfn/table3": 3,
    "dfn/fig5": 2,
    "dfn/table6": 4,
    "dfn/table7": 4,
    "dfn/fig11": 5,
    "gunn/table1": 1,
    "gunn/table2": 2,
    "gunn/table3": 3,
    "gunn/table4": 3,
    "gunn/table5": 2,
    "gunn/fig3": 3,
    "gunn/collapse": 7,
    "drnn/table1": 4,
    "drnn/table2": 6,
    "drnn/table3": 5,
    "drnn/fig6": 4,
    "drnn/fig7": 0,
    "drnn/fig8": 3,
    "drnn/fig9": 2,
    "drnn/gradients": 2,
    "drnn/gate-rates": 3,
    "drnn/cost": 5,
}
"""How many of its claims an experiment measures at ``smoke``: a misspelt key would leave a claim out."""

FIRST_OF_PAPER = {name.partition("/")[0]: name for name in reversed(list_experiments())}.values()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing the curves would take half of the time of a three-step run."""
    monkeypatch.setattr("polypath.training.loop.draw_curves", lambda *_: None)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FIRST_OF_PAPER else pytest.mark.slow) for n in list_experiments()]
)
def test_it_runs_and_all_claims_are_judged(name, tmp_path):
    experiment = get_experiment(name)
    result = reproduce(experiment, "smoke", out=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"result.json", "result.md", "figure.png", "figure.svg"}
    assert load_result(tmp_path / "out").to_json() == result.to_json()
    assert result.seeds == (() if experiment.measure is None else (0,))
    assert not result.diverged

    numbers = {**result.errors, **result.values}
    assert all(len(seeds) == 1 and math.isfinite(seeds[0]) for seeds in numbers.values())
    assert all(0.0 <= seeds[0] <= 100.0 for seeds in result.errors.values())
    trained = list((tmp_path / "runs").glob("*/run/summary.json"))
    assert 0 <= len(experiment.scale("smoke").arms) - len(trained) < 2  # two arms may be one run

    means = {key: seeds[0] for key, seeds in numbers.items()}
    judged = 0
    for claim, verdict in zip(experiment.claims, result.verdicts, strict=True):
        assert verdict.id == claim.id
        if verdict.word == "not measured":
            assert verdict.estimate is None
            continue
        judged += 1
        estimate = claim.statistic(result.counts if claim.exact else means)
        assert verdict.estimate == pytest.approx(float(estimate), abs=1e-9)
        decided = "holds" if estimate > 0 else "does not hold"
        assert verdict.word == (decided if claim.exact else "undecided")  # one seed decides nothing else
    assert judged == JUDGED[name]


@pytest.mark.parametrize("name", list_experiments())
def test_every_scale_says_what_it_changes_and_wants_several_seeds(name):
    experiment = get_experiment(name)
    assert "smoke" in experiment.scales
    for scale in experiment.scales:
        plan = experiment.scale(scale)
        assert plan.changes or scale == "paper"
        assert plan.seeds >= 3 or scale == "smoke"
        assert plan.arms or experiment.counts is not None
