"""Sweeps: the table, going on, failures, refusals."""

from __future__ import annotations

import csv
import json
import statistics
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny

from polypath.families.crescendonet import CrescendoNet
from polypath.training import sweep as module
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json
from polypath.training.sweep import Row, here, in_process_of_its_own, plan_of, sweep

RECIPE = tiny(epochs=1, data__train_images=64, model__scale=2)


def test_a_table_of_means_over_seeds_that_can_be_gone_on_with(tmp_path: Path) -> None:
    grid, asked = {"optim.lr": (0.01, 0.05)}, []

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        asked.append(path.name)
        here(recipe, path, slot)

    first = sweep(RECIPE, [0, 1], grid, tmp_path / "s", run=run)
    assert asked == [f"optim.lr={lr},seed={seed}" for lr in (0.01, 0.05) for seed in (0, 1)]
    for row, lr in zip(first.rows, (0.01, 0.05), strict=True):
        errors = [first.results[f"optim.lr={lr},seed={seed}"].test_error for seed in (0, 1)]
        assert row.values == {"optim.lr": lr}
        assert (row.runs, row.wanted) == (2, 2)
        assert row.test_error == pytest.approx(statistics.fmean(errors))
        assert row.test_std == pytest.approx(statistics.stdev(errors))
    assert len({result.test_loss for result in first.results.values()}) == 4
    assert "±" in first.text()
    asked.clear()
    more = sweep(RECIPE, [0, 1, 2], grid, tmp_path / "s", run=run)
    assert sorted(asked) == ["optim.lr=0.01,seed=2", "optim.lr=0.05,seed=2"]
    assert [row.runs for row in more.rows] == [3, 3]
    rows = list(csv.DictReader((tmp_path / "s" / "table.csv").open()))
    assert [row["optim.lr"] for row in rows] == ["0.01", "0.05"]
    assert float(rows[0]["test_error"]) == pytest.approx(more.rows[0].test_error)
    assert json.loads((tmp_path / "s" / "table.json").read_text())["rows"][0]["runs"] == 3


def test_runs_that_settled_their_precision_are_gone_on_with(tmp_path: Path) -> None:
    recipe = tiny(epochs=1, data__train_images=64, model__scale=2, precision="auto")
    sweep(recipe, [0], None, tmp_path / "s", run=here)
    more = sweep(recipe, [0, 1], None, tmp_path / "s", run=here, retries=0)
    assert (more.rows[0].runs, more.failed) == (2, {})
    fixed = {**recipe_to_json(recipe), "precision": "fp16"}  # another one was asked for: not that run
    (tmp_path / "t").mkdir()
    (tmp_path / "s" / "seed=0").rename(tmp_path / "t" / "seed=0")
    with pytest.raises(ValueError, match="a run of another recipe"):
        module._one(here, recipe_from_json(fixed), tmp_path / "t" / "seed=0", 0)


def test_failed_runs_are_tried_again_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tries: dict[str, int] = {}

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        tries[path.name] = tries.get(path.name, 0) + 1
        if recipe.seed == 1 and tries[path.name] == 1:
            raise RuntimeError("the first time\nfails")
        if recipe.seed == 2:
            raise RuntimeError("always fails")
        here(recipe, path, slot)

    caplog.set_level("INFO", "polypath.training.sweep")
    result = sweep(RECIPE, [0, 1, 2], None, tmp_path / "s", run=run, retries=2)
    assert tries == {"seed=0": 1, "seed=1": 2, "seed=2": 3}
    assert result.failed == {"seed=2": "always fails"}
    assert [(row.runs, row.wanted) for row in result.rows] == [(2, 3)]
    assert "failed: seed=2: always fails" in result.text()
    told = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert ("WARNING", "seed=1: failed (the first time fails), is tried again") in told
    assert ("INFO", f"seed=0: test error {result.results['seed=0'].test_error:.2f}%") in told


def test_runs_side_by_side_have_slots_of_their_own(tmp_path: Path) -> None:
    together, slots = threading.Barrier(2, timeout=30), []

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        slots.append(slot)
        together.wait()
        raise ValueError("done")

    assert len(sweep(RECIPE, [0, 1], None, tmp_path / "s", run=run, retries=0, workers=2).failed) == 2
    assert sorted(slots) == [0, 1]


@pytest.mark.parametrize(
    ("status", "message"), [("exit 2", "polypath: error: no"), ("kill -9 $$", "ended with status -9")]
)
def test_a_process_that_fails(status: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho some line\necho polypath: error: no >&2\n{status}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match=message):
        in_process_of_its_own(RECIPE, tmp_path / "s" / "bad", 0)
    assert (tmp_path / "s" / "logs" / "bad.txt").read_text() == "some line\npolypath: error: no\n"


def test_another_sweep_or_folder_is_refused(tmp_path: Path) -> None:
    def run(*_: Any) -> None:
        raise ValueError("not needed")

    sweep(RECIPE, [0], {"optim.lr": (0.1,)}, tmp_path / "s", run=run, retries=0)
    with pytest.raises(ValueError, match="a sweep of another grid"):
        sweep(RECIPE, [0], {"optim.lr": (0.2,)}, tmp_path / "s", run=run)
    with pytest.raises(ValueError, match="a sweep of another recipe"):
        sweep(tiny(), [0], {"optim.lr": (0.1,)}, tmp_path / "s", run=run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="is no sweep"):
        sweep(RECIPE, [0], None, tmp_path / "mine", run=run)


@pytest.mark.parametrize(
    ("seeds", "grid", "message"),
    [
        ([], {}, "at least one"),
        ([1, 1], {}, "each once"),
        ([0], {"seed": (1, 2)}, "give the seeds as such"),
        ([0], {"optim.lr": ()}, "no values for 'optim.lr'"),
        ([0], {"optim.rate": (1,)}, "no recipe field 'optim.rate'"),
        ([0], {"optim.lr": (-1.0,)}, "optim.lr = -1.0"),
        ([0], {"optim.lr": (0.1, 0.1)}, "twice"),
    ],
)
def test_plans_that_cannot_be(seeds: list[int], grid: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(RECIPE, seeds, grid, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_names_of_runs_are_words() -> None:
    plan = plan_of(RECIPE, [3], {"model.widths": ((4, 4), (8, 8)), "data.source": ("a/b c",)})
    assert list(plan) == [f"model.widths={w},data.source=a_b_c,seed=3" for w in ("4x4", "8x8")]
    models = [recipe.model for _, recipe in plan.values()]
    assert [model.widths for model in models if isinstance(model, CrescendoNet)] == [(4, 4), (8, 8)]


def test_a_cluster_needs_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"polypath\[cluster\]"):
        sweep(RECIPE, [0], None, tmp_path / "s", cluster="auto")
    assert not (tmp_path / "s").exists()


def test_a_cluster_is_handed_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray: Any = ModuleType("ray")
    asked = {}

    def remote(**options):
        asked.update(options)

        def wrap(function):
            handle: Any = ModuleType("handle")
            handle.remote = lambda *args: (function, args)
            return handle

        return wrap

    ray.is_initialized = lambda: False
    ray.init = lambda address: asked.update(address=address)
    ray.cluster_resources = lambda: {"GPU": 4.0}
    ray.remote = remote
    ray.get = lambda task: task[0](*task[1])
    monkeypatch.setitem(sys.modules, "ray", ray)
    result = sweep(RECIPE, [0], None, tmp_path / "s", cluster="10.0.0.1:6379")
    assert asked == {"address": "10.0.0.1:6379", "num_gpus": 1}
    assert list(result.results) == ["seed=0"]


def test_the_table_of_few_runs() -> None:
    rows = [Row({"a": 1}, 1, 3, 5.0, None, None, None), Row({}, 0, 3, None, None, None, None)]
    text = module.SweepResult(rows, {}).text()
    assert "5.00" in text
    assert "±" not in text.split("\n")[1]
    assert "0/3" in text
