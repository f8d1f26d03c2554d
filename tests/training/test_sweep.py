"""Sweeps: the table, continuing, failures, refusals."""

from __future__ import annotations

import csv
import json
import os
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny import tiny

from locked import fork, status_of
from polypath.families.crescendonet import CrescendoNet
from polypath.storage.lock import FolderLock
from polypath.training import own_process
from polypath.training import sweep as module
from polypath.training.own_process import here, in_process_of_its_own
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json
from polypath.training.run import RunFolder
from polypath.training.signals import Interrupted, Stopped
from polypath.training.sweep import Row, plan_of, sweep

RECIPE = tiny(epochs=1, data__train_images=64, model__scale=2)


def test_a_table_of_means_over_seeds_that_can_be_continued(tmp_path: Path) -> None:
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


def test_runs_that_settled_their_precision_are_continued(tmp_path: Path) -> None:
    recipe = tiny(epochs=1, data__train_images=64, model__scale=2, precision="auto")
    sweep(recipe, [0], None, tmp_path / "s", run=here)
    more = sweep(recipe, [0, 1], None, tmp_path / "s", run=here, retries=0)
    assert (more.rows[0].runs, more.failed) == (2, {})
    fixed = {**recipe_to_json(recipe), "precision": "fp16"}  # another one was asked for: not that run
    (tmp_path / "t").mkdir()
    (tmp_path / "s" / "seed=0").rename(tmp_path / "t" / "seed=0")
    with pytest.raises(ValueError, match="a run of another recipe"):
        module._one(here, recipe_from_json(fixed), tmp_path / "t" / "seed=0", 0)


def test_a_sweep_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    sweep(RECIPE, [0], None, tmp_path / "s", run=here)
    for file, place in ((tmp_path / "s" / "sweep.json", "recipe"), (tmp_path / "s" / "seed=0" / "recipe.json", "")):
        held = json.loads(file.read_text())
        del (held[place] if place else held)["path"]  # a field that came since
        file.write_text(json.dumps(held))
    assert sweep(RECIPE, [0], None, tmp_path / "s", run=here, retries=0).failed == {}


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
    assert ("WARNING", "seed=1: the run failed (the first time fails) and will be retried") in told
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


SLEEPER = """#!/bin/sh
read recipe
trap 'kill $!; echo saved; exit 143' TERM
sleep 60 &
echo $$ >> "$3.pid"
wait
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_nothing_new_is_begun(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(SLEEPER)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    begun = [tmp_path / "s" / f"seed={seed}.pid" for seed in range(2)]

    def stop() -> None:
        while not all(file.is_file() for file in begun):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    (tmp_path / "s").mkdir()
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted if number == signal.SIGINT else Stopped, match="0 of 3 runs finished"):
        sweep(RECIPE, [0, 1, 2], None, tmp_path / "s", workers=2)
    for seed in range(2):
        assert (tmp_path / "s" / "logs" / f"seed={seed}.txt").read_text() == "saved\n"
    assert not (tmp_path / "s" / "logs" / "seed=2.txt").exists()
    assert not (tmp_path / "s" / ".lock").exists()
    monkeypatch.setattr(module, "in_process_of_its_own", None)
    assert not sweep(RECIPE, [0, 1, 2], None, tmp_path / "s", run=here).failed  # the same command goes on


@pytest.mark.slow
def test_a_sweep_stopped_by_a_signal_leaves_saved_runs(tmp_path: Path) -> None:
    recipe = tiny(epochs=10_000, data__train_images=64, model__scale=2, checkpoint_every=10_000)
    pid = fork(lambda: sweep(recipe, [0, 1], None, tmp_path / "s", workers=2))
    runs = [tmp_path / "s" / f"seed={seed}" for seed in range(2)]
    while not all((run / "metrics.jsonl").is_file() for run in runs):
        time.sleep(0.05)
    with pytest.raises(ValueError, match=f"process {pid} is writing into this folder"):
        sweep(recipe, [0, 1], None, tmp_path / "s")
    os.kill(pid, signal.SIGTERM)
    assert status_of(pid) == 143
    for run in runs:
        done = len((run / "metrics.jsonl").read_text().splitlines())
        assert RunFolder.open(run).checkpoints.steps()[-1] >= 2 * done
        with FolderLock(run):  # its writer is gone
            pass


def test_a_run_exits_when_the_pipe_of_its_parent_closes() -> None:
    out, into = os.pipe()
    if not (pid := os.fork()):
        os.close(into)
        os.dup2(out, 0)
        threading.Thread(target=own_process._leave_with_the_starter, daemon=True).start()
        time.sleep(60)
        os._exit(0)
    os.close(out)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(into)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143


def test_a_second_sweep_into_a_folder_is_refused(tmp_path: Path) -> None:
    def run(recipe: Recipe, path: Path, slot: int) -> None:
        with pytest.raises(ValueError, match=f"this process .id {os.getpid()}. is already writing into this folder"):
            sweep(RECIPE, [0], None, path.parent, run=here)
        here(recipe, path)

    assert not sweep(RECIPE, [0], None, tmp_path / "s", run=run).failed


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
    with pytest.raises(ValueError, match="is not a sweep"):
        sweep(RECIPE, [0], None, tmp_path / "mine", run=run)


@pytest.mark.parametrize(
    ("seeds", "grid", "message"),
    [
        ([], {}, "at least one"),
        ([1, 1], {}, "each seed only once"),
        ([0], {"seed": (1, 2)}, "give seeds in the argument 'seeds'"),
        ([0], {"optim.lr": ()}, "no values for 'optim.lr'"),
        ([0], {"optim.rate": (1,)}, "no recipe field 'optim.rate'"),
        ([0], {"optim.lr": (-1.0,)}, "optim.lr = -1.0"),
        ([0], {"optim.lr": (0.1, 0.1)}, "twice"),
    ],
)
def test_impossible_plans_are_refused(seeds: list[int], grid: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(RECIPE, seeds, grid, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_seeds_and_values_may_be_arrays(tmp_path: Path) -> None:
    """They are those of plain numbers, so the same sweep goes on."""

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        raise RuntimeError(json.dumps([recipe.seed, recipe.optim.lr]))

    plain = sweep(RECIPE, [1, 2], {"optim.lr": (0.5, 0.25)}, tmp_path / "s", run=run)
    lr: Any = np.array([0.5, 0.25], np.float32)
    seeds: Any = np.arange(1, 3)
    assert sweep(RECIPE, seeds, {"optim.lr": lr}, tmp_path / "s", run=run) == plain
    assert sorted(map(json.loads, plain.failed.values())) == [[1, 0.25], [1, 0.5], [2, 0.25], [2, 0.5]]
    with pytest.raises(ValueError, match=r"seeds = \[\]"):
        sweep(RECIPE, seeds[:0], None, tmp_path / "t", run=run)


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
    ray.init = lambda address, **_: asked.update(address=address)
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
