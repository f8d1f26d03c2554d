"""An experiment that is killed several times ends with the same numbers, and loses at most an epoch each time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import child_environment
from polypath.reproduce.store import load_result
from polypath.training.run import RunFolder

KILLS, STEPS = 3, 3  # steps in an epoch
PATIENCE = 120.0  # seconds
PROGRAM = (
    "import sys; from dataclasses import replace; from tiny_experiments import tiny; "
    "from polypath.reproduce.experiment import Scale; from polypath.reproduce.runner import reproduce\n"
    "plain = tiny(epochs=12, keep=1)\n"
    "scale = Scale(arms=plain.scale('smoke').arms, seeds=2, both_lengths=True)\n"
    "reproduce(replace(plain, scales={'smoke': lambda: scale}), 'smoke', out=sys.argv[1], runs=sys.argv[2])"
)


def started(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(folder / "out"), str(folder / "runs")]
    return subprocess.Popen(command, env=child_environment(Path(__file__).parent))


def epochs(runs: Path) -> int:
    """The total number of epochs trained in all runs."""
    return sum(file.read_bytes().count(b"\n") for file in runs.glob("*/run/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigkill_on_the_way_changes_no_number(tmp_path: Path) -> None:
    assert started(tmp_path / "calm").wait(PATIENCE) == 0
    calm, runs = load_result(tmp_path / "calm/out"), tmp_path / "killed/runs"
    whole = epochs(tmp_path / "calm/runs")
    for kill in range(1, KILLS + 1):
        process, last = started(tmp_path / "killed"), time.monotonic() + PATIENCE
        while epochs(runs) < whole * kill // (KILLS + 1):
            assert process.poll() is None
            assert time.monotonic() < last
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed/out/result.json").exists()
        for run in [p.parent for p in runs.glob("*/run/metrics.jsonl") if not (p.parent / "summary.json").exists()]:
            steps = RunFolder.open(run).checkpoints.steps()
            seen = (run / "metrics.jsonl").read_bytes().count(b"\n")
            assert (steps[-1] // STEPS if steps else 0) >= seen - 1
    assert started(tmp_path / "killed").wait(PATIENCE) == 0
    again = load_result(tmp_path / "killed/out")
    assert (again.errors, again.half_errors) == (calm.errors, calm.half_errors)
    assert (again.values, again.verdicts) == (calm.values, calm.verdicts)
