"""The services themselves, where they are installed: W&B offline, and trackio."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import images, tiny

from polypath.training.loop import train
from polypath.training.recipe import recipe_to_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tiny(epochs=2, tracker="wandb"), tmp_path / "run", data=images(), quiet=True)
    own = json.loads((tmp_path / "run" / "tracker.json").read_text())["id"]
    (record,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{own}/run-{own}.wandb")
    written = record.read_bytes()
    assert all(name.encode() in written for name in ("train_loss", "val_error", "step/loss"))


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    program = "from polypath.training.own_process import main; main()"  # trackio reads its folder on import
    recipe = json.dumps(recipe_to_json(tiny(epochs=2, tracker="trackio")))
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(recipe + "\n")
        process.stdin.flush()
        assert process.wait() == 0
    own = json.loads((tmp_path / "run" / "tracker.json").read_text())["id"]
    with sqlite3.connect(tmp_path / "trackio" / "polypath.db") as database:
        rows = database.execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {f"run-{own}"}
    logged = [json.loads(text) for _, text in rows]
    assert sum("val_error" in row for row in logged) == 2
    assert sum("step/loss" in row for row in logged) == 10
