"""The cost of experiments before they run, and the frozen plan of ``medium``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_experiments import tiny

from conftest import ROOT
from polypath.cli import main
from polypath.reproduce import frozen, plan, power
from polypath.reproduce.claims import above, better
from polypath.reproduce.experiment import Scale, definition_id
from polypath.reproduce.plan import Plan, Planned, in_order, run_pflop
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.runner import reproduce
from polypath.reproduce.scales import vary
from polypath.training.expected import expected_pflop

HELD = json.loads(frozen.FILE.read_text(encoding="utf-8"))
LEARNS = tiny().scale("smoke").arms["learns"]


def test_main_experiments_of_papers_come_first():
    names = in_order("medium")
    assert names[: len(plan.CARRIED)] == list(plan.CARRIED)
    assert len({name.partition("/")[0] for name in plan.CARRIED}) == 5
    assert len(names) == len(set(names)) == len(HELD["experiments"])


def test_a_run_costs_what_its_steps_cost():
    recipe = vary(LEARNS, epochs=3)
    assert run_pflop(recipe) == pytest.approx(expected_pflop(recipe, 120, 8), rel=0.02)  # each 40 of 120 images
    assert run_pflop(vary(recipe, epochs=6)) == pytest.approx(2 * run_pflop(recipe))


def test_arms_in_common_are_paid_for_once(monkeypatch):
    monkeypatch.setattr(plan, "run_pflop", lambda recipe: float(recipe.epochs))
    arms = {"a": vary(LEARNS, epochs=4), "b": vary(LEARNS, epochs=4, batch_size=20)}
    one = replace(tiny(), scales={"medium": lambda: Scale(arms=arms, seeds=2, both_lengths=True)})
    other = replace(one, scales={"medium": lambda: Scale(arms={"of another name": arms["a"]}, seeds=2)})
    known = {"one": one, "other": other}
    monkeypatch.setattr(plan, "get_experiment", known.__getitem__)
    found = plan.plan_of("medium", known)
    assert [(e.own, e.pflop, e.runs) for e in found.experiments] == [(24.0, 24.0, 8), (8.0, 0.0, 0)]
    assert found.pflop == 24.0


def test_a_projection_says_what_it_measured_and_what_it_assumes(monkeypatch):
    monkeypatch.setattr(plan, "run_pflop", lambda recipe: 3.6)
    found = plan.projected(LEARNS, rate_gpu=1e12)
    assert found.rate_here > 0
    assert found.seconds_gpu == pytest.approx(3600)
    assert found.seconds_here == pytest.approx(3.6e15 / found.rate_here)


def test_the_command_says_what_would_run(monkeypatch, capsys):
    monkeypatch.setattr(plan, "run_pflop", lambda recipe: 0.01)
    monkeypatch.setattr(plan, "rate_here", lambda *_: 1e10)
    assert main(["reproduce", "--all", "--scale", "medium", "--plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told["experiments"]] == in_order("medium")
    assert told["hours_here"] == pytest.approx(told["pflop"] * 1e15 / 1e10 / 3600)
    assert main(["reproduce", "crescendonet/table2", "--project"]) == 0
    assert "training at 100 TFLOP/s is assumed" in " ".join(capsys.readouterr().out.split())
    for argv, says in (
        (["--plan"], "need an experiment, or --all"),
        (["crescendonet/table2", "--all"], "--all with 'crescendonet/table2'"),
        (["crescendonet/cost", "--project"], "trains nothing"),
        (
            ["crescendonet/cost", "--scale", "medium", "--plan"],
            "crescendonet/cost has only the scales smoke, small, paper",
        ),
    ):
        assert main(["reproduce", *argv]) == 2
        assert says in capsys.readouterr().err


# --- power --------------------------------------------------------------------------------------------------------


def test_more_seeds_see_smaller_effects():
    assert power.seen(1.0, 3) == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert power.seen(1.0, 1) == float("inf")
    needed = power.seeds_for(1.0, 2.0)
    assert power.seen(1.0, needed) <= 1.0 < power.seen(1.0, needed - 1)
    assert power.seeds_for(1.0, 1e-6) == power.MOST_SEEDS


def test_spreads_are_of_the_claim_itself_or_of_claims_in_its_unit():
    claim = better("learning-helps", "learns", "rests", "it helps")
    known = {"fractalnet/tiny": {"learning-helps": (1.0, 60.0, "points")}, "dfn/x": {"other": (3.0, 60.0, "nats")}}
    expected = power.EXPECTED / 60.0
    assert power.spread_of(tiny(), claim, known) == (pytest.approx(expected), "this claim at small")
    other = power.spread_of(tiny(), replace(claim, id="unseen"), known)
    assert other is not None
    assert other.source.startswith("the median of claims of this paper")
    nats = power.spread_of(tiny(), above("loss", "a", 1.0, "it", "nats"), known)
    assert nats is not None
    assert (nats.deviation, nats.source) == (3.0, "the median of claims of all papers at small, in nats")
    assert power.spread_of(tiny(), above("far", "a", 1.0, "it", "miles"), known) is None


# --- the frozen plan ----------------------------------------------------------------------------------------------


WORDED = ("text", "statistic", "why")
"""Fields of a claim that keep the wording of the day on which the plan was frozen."""


def test_the_frozen_plan_is_what_the_code_makes():
    """Except for PFLOP, which another test counts, and for the wording."""
    costs = {of["name"]: of for of in HELD["experiments"]}
    planned = [Planned(n, "", of["seeds"], 0, of["new_runs"], of["pflop"], of["new_pflop"]) for n, of in costs.items()]
    left = {of["name"]: of["pflop"] for of in HELD["beyond"]}
    small = frozen.load_small(ROOT / "docs/results/reproduce")
    made = frozen.freeze(Plan("medium", tuple(planned)), small, left)
    assert {k: v for k, v in made.items() if k not in ("pflop", "experiments")} == {
        k: v for k, v in HELD.items() if k not in ("pflop", "experiments")
    }
    assert HELD["beyond"][0]["claims"] == ["path-wise-costs-accuracy-c10+"]
    for new, old in zip(made["experiments"], HELD["experiments"], strict=True):
        for claim, held in zip(new["claims"], old["claims"], strict=True):
            numbers = {k: v for k, v in claim.items() if isinstance(v, float)}
            assert numbers == pytest.approx({k: held[k] for k in numbers}, rel=0.03)
            assert {k: v for k, v in claim.items() if k not in numbers and k not in WORDED} == {
                k: v for k, v in held.items() if k not in numbers and k not in WORDED
            }
            assert claim.keys() == held.keys()
        assert {**new, "claims": []} == {**old, "claims": []}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_pflop_are_those_of_the_runs():
    made = plan.plan_of("medium")
    for planned, held in zip(made.experiments, HELD["experiments"], strict=True):
        assert (planned.own, planned.pflop) == pytest.approx((held["pflop"], held["new_pflop"]), rel=0.02)


def test_reasons_of_undecidable_claims_are_in_the_current_wording():
    claim = {"why": "12 seeds would do", "effect": -0.31, "effect_from": "print", "spread": 0.2, "sees": 0.582}
    few = claim | {"needs_seeds": 12, "needs_pflop": 8.42}
    assert frozen.why(few, 3) == (
        "3 seeds can detect an effect of 0.582, but half of the printed effect is 0.155; "
        "this needs 12 seeds (8.42 PFLOP)"
    )
    assert "half of the smallest relevant effect" in frozen.why(few | {"effect_from": "frozen here"}, 3)
    assert frozen.why(claim | {"why": "the printed effect is 0"}, 3) == "the printed effect is 0"
    assert frozen.why({"why": "nothing measured", "effect": 1.0}, 3) == frozen.UNKNOWN
    assert frozen.why({"why": "exercised: before", "effect": 1.0}, 3).startswith("exercised (an ImageNet network")
    told = {of["name"]: frozen.Frozen(of).undecidable for of in HELD["experiments"]}
    assert "can detect an effect of" in told["dfn/table2"]["sharing-helps-the-deep"]


def test_the_frozen_plan_keeps_to_its_budget_and_decides_something_of_each_paper():
    assert HELD["pflop"] <= HELD["budget_pflop"] == frozen.BUDGET
    assert sum(of["new_pflop"] for of in HELD["experiments"]) == pytest.approx(HELD["pflop"], rel=0.02)
    decidable = {
        of["name"].partition("/")[0] for of in HELD["experiments"] if any(c["decidable"] for c in of["claims"])
    }
    assert len(decidable) == 5
    for of in HELD["experiments"]:
        assert of["seeds"] >= 3
        assert of["claims"]
        for claim in of["claims"]:
            assert claim["decidable"] or claim["why"]
            assert claim["decidable"] is False or claim["sees"] <= abs(claim["effect"]) / 2


def test_every_recipe_of_medium_differs_from_print_in_schedule_batch_and_precision_alone():
    for name in in_order("medium"):
        for recipe in get_experiment(name).scale("medium").arms.values():
            assert (recipe.data.source, recipe.data.train_images, recipe.data.test_images) == ("cifar10", None, None)
            assert recipe.data.size in (None, 32)
            assert (recipe.label_smoothing, recipe.mixup, recipe.cutmix, recipe.ema, recipe.swa) == (0, 0, 0, 0, 0)
            assert recipe.objective.kind != "distil"
            assert (recipe.init, recipe.checkpoint_every) == (None, 1)


def test_a_run_at_medium_is_held_to_the_frozen_plan(monkeypatch, tmp_path):
    arms = {arm: vary(recipe, epochs=2) for arm, recipe in tiny().scale("smoke").arms.items()}
    plain = replace(tiny(), scales={"medium": lambda: Scale(arms=arms, seeds=2, both_lengths=True)})
    scale = plain.scale("medium")
    claim = {"id": "learning-helps", "decidable": False, "why": "too few seeds"}
    values = {"name": plain.name, "definition": "other", "seeds": 2, "claims": [claim]}
    monkeypatch.setattr(frozen, "frozen", lambda name: frozen.Frozen(values))
    with pytest.raises(ValueError, match="the definition or the claims have changed since the plan"):
        reproduce(plain, "medium", out=tmp_path / "out")
    values["definition"] = definition_id(plain, "medium", scale)
    with pytest.raises(ValueError, match="--seeds 3: must be 2 at medium, the number of seeds in the frozen plan"):
        reproduce(plain, "medium", seeds=3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = reproduce(plain, "medium", out=tmp_path / "out")
    verdict = result.verdict("learning-helps")
    assert (verdict.word, verdict.reason) == ("undecided", "too few seeds")
    assert verdict.half is not None
    assert result.half_errors.keys() == result.errors.keys()
