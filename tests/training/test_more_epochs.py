"""``resume(run, epochs=N)``: continues after the end, as a run whose recipe has N epochs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from tiny import equal, left, tiny

import polypath as pp
from polypath.analysis.finished_run import FinishedRun
from polypath.cli import main
from polypath.training import run as module
from polypath.training.checkpoint import Checkpoints
from polypath.training.loop import resume, train
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.run import RunFolder
from polypath.training.schedules import Schedule, ScheduleConfig

SMALL: dict[str, Any] = {"epochs": 2, "data__train_images": 64, "model__scale": 2}
STEPS = 2  # in an epoch


def trained(path: Path, **fields: Any) -> Recipe:
    recipe = tiny(**SMALL, **fields)
    train(recipe, path, quiet=True)
    return recipe


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "run"
    trained(path)
    return path


@pytest.fixture
def run(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "run"))


def test_with_a_constant_rate_it_equals_a_run_started_with_more_epochs(run: Path, tmp_path: Path) -> None:
    before = json.loads((run / "summary.json").read_text())
    (run / "paths.csv").write_text("of the network before")
    result = pp.resume(run, epochs=4, quiet=True)
    calm = train(tiny(**{**SMALL, "epochs": 4}), tmp_path / "calm", quiet=True)
    (a, rows), (b, others) = left(run), left(tmp_path / "calm")
    assert rows == others
    assert rows.count(b"\n") == 4
    assert equal(a.tensors, b.tensors)
    assert result.test_evaluations == 2  # at both ends
    same: dict[str, Any] = {"run_dir": "", "seconds": 0.0, "test_evaluations": 1}
    assert changed(result, **same) == changed(calm, **same)
    assert (run / "model/model.safetensors").read_bytes() == (tmp_path / "calm/model/model.safetensors").read_bytes()
    assert json.loads((run / "summary-2.json").read_text()) == before
    assert not (run / "paths.csv").exists()
    assert resume(run, quiet=True) == result
    assert pp.resume(run, epochs=5, quiet=True).steps == 5 * STEPS  # and again


@pytest.mark.parametrize(
    "schedule",
    [
        ScheduleConfig(kind="step", at_fractions=(0.5,)),
        ScheduleConfig(kind="step", every_epochs=1),
        ScheduleConfig(kind="halving", drops=2),
        ScheduleConfig(kind="one-cycle", start=0.1),
        pytest.param(ScheduleConfig(kind="cosine", warmup_epochs=1), marks=pytest.mark.slow),
        ScheduleConfig(kind="cyclic-cosine", cycles=2),
    ],
    ids=lambda schedule: schedule.kind,
)
def test_the_schedule_is_that_of_all_epochs(schedule: ScheduleConfig, tmp_path: Path) -> None:
    recipe = trained(tmp_path / "run", schedule=schedule)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    result = resume(tmp_path / "run", epochs=4, quiet=True)
    rates = [row["lr"] for row in RunFolder.open(tmp_path / "run").metrics()]
    old, new = (Schedule(schedule, recipe.optim.lr, STEPS, epochs) for epochs in (2, 4))
    assert rates == [old.at(1), old.at(3), new.at(5), new.at(7)]
    assert len(result.snapshots) == (3 if schedule.cycles == 2 else 0)

    # by hand: the state after two epochs, as that of a run whose recipe has four
    folder = RunFolder.open(tmp_path / "other")
    states = [folder.checkpoints.load(step) for step in folder.checkpoints.steps()]
    long = changed(recipe, epochs=4)
    (folder.path / "recipe.json").write_text(json.dumps(recipe_to_json(long)))
    (folder.path / "summary.json").unlink()
    for state in states:
        RunFolder(folder.path, long).checkpoints.save(state)
    resume(folder.path, quiet=True)
    (a, rows), (b, others) = left(tmp_path / "run"), left(folder.path)
    assert rows == others
    assert equal(a.tensors, b.tensors)


def test_too_few_epochs_are_refused_and_nothing_changes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run)
    for epochs in ("1", "2"):
        assert main(["resume", str(run), "--epochs", epochs]) == 2
        assert f"epochs = {epochs}: must be more than the 2 that {run} has already been trained for" in (
            " ".join(capsys.readouterr().err.split())
        )
    with pytest.raises(ValueError, match="epochs = 0: must be a whole number"):
        resume(run, epochs=0)
    assert files(run) == before
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ValueError, match="checkpoints are missing"):
        resume(run, epochs=3, quiet=True)
    assert files(run) == {name: data for name, data in before.items() if not name.startswith("checkpoints/")}


def test_a_schedule_that_has_no_such_epochs_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", schedule=ScheduleConfig(kind="step", at_epochs=(1.0,)))
    folder = RunFolder.open(tmp_path / "run")
    folder.summary_file.unlink()
    with pytest.raises(ValueError, match=r"at_epochs: 1\.0 is not within the run's 1 epochs"):
        resume(tmp_path / "run", epochs=1, quiet=True)


def test_a_run_that_was_stopped_may_end_earlier_or_later(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_at(6, monkeypatch):
        resume(run, epochs=6, quiet=True)
    with pytest.raises(ValueError, match="epochs = 3: must be more than the 3"):
        resume(run, epochs=3, quiet=True)
    with pytest.raises(ValueError, match="not finished"):  # the network of two epochs is there, under another recipe
        _ = FinishedRun(run).net
    assert pp.load(run / "model").num_classes == 10
    assert resume(run, epochs=4, quiet=True).steps == 4 * STEPS
    assert [session["seed"] for session in RunFolder.open(run).sessions()] == [0] * 3


@pytest.mark.parametrize("at", ["earlier.json", "recipe.json"])
def test_killed_while_it_is_written_down(at: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = resume(Path(shutil.copytree(run, tmp_path / "calm")), epochs=4, quiet=True)
    write = module.write_json

    def fatal(path: Path, value: Any) -> None:
        if path.name == at:
            raise KeyboardInterrupt
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", fatal)
        with pytest.raises(KeyboardInterrupt):
            resume(run, epochs=4, quiet=True)
    assert resume(run, quiet=True).steps == 2 * STEPS  # still, or again, the whole run of two epochs
    found = resume(run, epochs=4, quiet=True)
    assert changed(found, run_dir="", seconds=0.0) == changed(calm, run_dir="", seconds=0.0)


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A block that is left by an exception as soon as the checkpoint of ``step`` is written."""
    save = Checkpoints.save

    def fatal(self: Checkpoints, checkpoint: Any) -> None:
        save(self, checkpoint)
        if checkpoint.step == step:
            monkeypatch.setattr(Checkpoints, "save", save)
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", fatal)
    return pytest.raises(KeyboardInterrupt)
