"""``polypath ladder`` on the command line: refusals, and a ladder that is interrupted and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polypath.cli import main
from polypath.worth.result import load_ladder

TINY = ["--model.widths", "4", "4", "--model.scale", "2", "--model.hidden", "8", "--data.train-images", "192"]
ARGV = ["crescendonet-digits", "--seeds", "1", "--paths", "branches=1", "--runtime", "none", "--epochs", "2", *TINY]
ARGV += ["--alone", "epochs", "--alone", "taught", "--num-images", "64", "--batch-size", "32", "--device", "cpu"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ladder", "no-such-recipe"], "no-such-recipe"),
        (["ladder", "crescendonet-digits", "--alone", "both"], "both"),
        (["ladder", "crescendonet-digits", "--paths", "branches=9"], "branch = '9'"),
        (["ladder", "crescendonet-digits", "--path", "branches=1"], "whole network"),
        (["ladder", "crescendonet-digits", "--epoch", "3"], "--epochs"),
    ],
)
def test_refusals_are_one_line(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--out", str(tmp_path / "ladder")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "ladder").exists()


@pytest.mark.slow
def test_an_interrupted_ladder_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ladder"
    command = [sys.executable, "-m", "polypath", "ladder", *ARGV, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    second = out / "epochs,branches=1,seed=0"
    deadline = time.monotonic() + 240
    while not second.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "continue" in said
    assert not (out / "result.json").exists()
    assert main(["ladder", *ARGV, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    result = load_ladder(out)
    assert told == json.loads(json.dumps(result.to_json()))
    assert [(row.name, list(row.alone)) for row in result.rows] == [
        ("branches=1", ["epochs", "taught"]),
        ("whole", ["epochs", "taught"]),
    ]
    assert main(["ladder", *ARGV, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for word in ("branches=1", "tax", "PFLOP", "evaluations on the test split"):
        assert word in said
