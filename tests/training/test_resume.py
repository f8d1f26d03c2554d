"""Stopped or killed runs resume with bitwise the result of an uninterrupted run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import equal, images, left, tiny

from conftest import child_environment
from locked import fork, held, status_of
from polypath.training import loop, signals
from polypath.training.checkpoint import Checkpoint, Checkpoints
from polypath.training.engine import Engine
from polypath.training.loop import resume, train
from polypath.training.recipe import Recipe
from polypath.training.run import RunFolder

HERE = Path(__file__).parent


class Killed(Exception):
    """Stands for a kill: nothing of ours catches it."""


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Any) -> None:
    """Call ``act`` once, before the step of this number (from 0) of the whole run."""
    step, todo = Engine.step, [number]

    def watched(self: Engine, parts, total, epoch, at, flag=0):
        if todo and at == todo[0]:
            todo.clear()
            act()
        return step(self, parts, total, epoch, at, flag)

    monkeypatch.setattr(Engine, "step", watched)


def kill() -> None:
    raise Killed


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calm") / "run"
    train(tiny(), path, data=images(), quiet=True)
    return path


def assert_same(a: Path, b: Path) -> None:
    (one, rows), (two, others) = left(a), left(b)
    assert rows == others
    assert one.step == two.step
    assert equal(one.tensors, two.tensors)
    assert one.state["engine"] == two.state["engine"]
    assert (
        json.loads((a / "summary.json").read_text())["test_loss"]
        == (json.loads((b / "summary.json").read_text())["test_loss"])
    )


# --- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 6, 9, 14])  # the first one, within an epoch, before the end of one, the last one
def test_sigterm_saves_and_exits_with_143(
    step: int, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    if step == 14:  # it is asked after the last step: the run ends
        train(tiny(), tmp_path / "run", data=images(), quiet=True)
    else:
        with pytest.raises(SystemExit) as leave:
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
        assert leave.value.code == 143
        assert f"polypath resume {tmp_path / 'run'}" in str(leave.value)
        assert RunFolder.open(tmp_path / "run").checkpoints.steps()[-1] == step + 1
        resume(tmp_path / "run", data=images(), quiet=True)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert_same(calm, tmp_path / "run")


def test_ctrl_c_saves_and_says_how_to_resume(calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_step(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(
        KeyboardInterrupt, match="stopped in epoch 2 after step 8; this command continues it:\npolypath resume"
    ):
        train(tiny(), tmp_path / "run", data=images(), quiet=True)
    resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")


def test_a_second_ctrl_c_exits_at_once() -> None:
    program = (
        "import os, runpy, signal, sys\n"
        "stop_requests = runpy.run_path(sys.argv[1])['stop_requests']\n"
        "with stop_requests() as request:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(int(request.signal), flush=True)\n"
        "    if len(sys.argv) > 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    command = [sys.executable, "-c", program, str(signals.__file__)]
    once = subprocess.run(command, capture_output=True, text=True)
    twice = subprocess.run([*command, "again"], capture_output=True, text=True)
    assert (once.returncode, once.stdout.split()) == (0, ["2", "still", "here"])
    assert (twice.returncode, twice.stdout.split()) == (130, ["2"])


# --- kills -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 3, 5, 13])
def test_killed_at_a_step(step: int, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_step(monkeypatch, step, kill)
    with pytest.raises(Killed):
        train(tiny(), tmp_path / "run", data=images(), quiet=True)
    resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")


def test_killed_between_the_metrics_and_the_checkpoint(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def fatal(self: Checkpoints, checkpoint: Checkpoint) -> None:
        if checkpoint.step == 10:
            raise Killed
        save(self, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fatal)
        with pytest.raises(Killed):
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
    assert len(RunFolder.open(tmp_path / "run").metrics()) == 2  # the line of epoch 2 is there, its checkpoint is not
    resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")


def test_killed_at_the_end(calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda *_: kill())
        with pytest.raises(Killed):
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
    result = resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")
    assert resume(tmp_path / "run", data=images(), quiet=True) == result  # finished: only read
    assert len(json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"]) == 2


def test_no_space_keeps_the_checkpoint_before(calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import polypath.training.checkpoint as module

    write = module.save_file

    def full(tensors, file, metadata=None) -> None:
        if "00000010" in str(file):
            raise OSError(28, "No space left on device")
        write(tensors, file, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(OSError, match=r"No space left on device; the checkpoint of step 5 is intact"):
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
    resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")


MANY = {"droppath": 20, "pathwise": 5, "gates": 5, "two": 5, "two-term": 3}


@pytest.mark.slow  # tests/training/test_sigkills.py has a quick one
@pytest.mark.timeout(1200)
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    asked = [f"{case}={number}" for case, number in MANY.items()]
    command = [sys.executable, str(HERE / "kills.py"), str(tmp_path), *asked]
    done = subprocess.run(command, env=child_environment(HERE), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for line, (case, number) in zip(done.stdout.splitlines(), MANY.items(), strict=True):
        assert line.startswith(f"{case}: {number} kills")


# --- one writer --------------------------------------------------------------------------------------------


def test_a_run_that_another_process_trains_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run") as (pid, leave):
        with pytest.raises(ValueError, match=f"process {pid} is writing into this folder"):
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
        os.write(leave, b".")
        assert status_of(pid) == 0
    assert not list((tmp_path / "run").iterdir())

    def resume_too() -> None:
        with pytest.raises(ValueError, match=f"process {os.getppid()} is writing into this folder"):
            resume(tmp_path / "run", data=images(), quiet=True)

    statuses = []
    before_step(monkeypatch, 7, lambda: statuses.append(status_of(fork(resume_too))))
    train(tiny(), tmp_path / "run", data=images(), quiet=True)
    assert statuses == [0]
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_writer_that_has_lost_its_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        rivals: list[tuple[int, int]] = []

        def lose() -> None:
            (tmp_path / "run" / ".lock").unlink()
            rivals.append(stack.enter_context(held(tmp_path / "run")))

        before_step(monkeypatch, 7, lose)
        with pytest.raises(ValueError, match="is writing into this folder"):
            train(tiny(), tmp_path / "run", data=images(), quiet=True)
        assert RunFolder.open(tmp_path / "run").checkpoints.steps() == [5]
        os.write(rivals[0][1], b".")
        assert status_of(rivals[0][0]) == 0


# --- what resuming refuses ---------------------------------------------------------------------------------


def test_other_images_are_refused(calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_step(monkeypatch, 7, kill)
    with pytest.raises(Killed):
        train(tiny(), tmp_path / "run", data=images(), quiet=True)
    other = loop.load_images(tiny(data__split_seed=1).data)
    with pytest.raises(ValueError, match="not those that the run started with"):
        resume(tmp_path / "run", data=other, quiet=True)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such run folder"):
        resume(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no recipe\.json"):
        resume(tmp_path)


def test_the_best_checkpoint_outlives_later_ones(tmp_path: Path) -> None:
    recipe: Recipe = tiny(epochs=5, keep=1, optim__lr=0.3)
    result = train(recipe, tmp_path / "run", data=images(), quiet=True)
    steps = RunFolder.open(tmp_path / "run").checkpoints.steps()
    assert steps == sorted({5 * result.epoch, 25})
