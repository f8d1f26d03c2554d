"""Runs that are killed at random moments and resumed at once end as uninterrupted ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import child_environment

HERE = Path(__file__).parent
KILLS = dict.fromkeys(("plain", "drop-path", "path-wise", "streaming", "sweep"), 2)  # more by hand: sigkills.py


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigkill_at_random_moments_of_a_runs_life(tmp_path: Path) -> None:
    asked = [f"{kind}={number}" for kind, number in KILLS.items()]
    command = [sys.executable, str(HERE / "sigkills.py"), str(tmp_path), "0", *asked]
    done = subprocess.run(command, env=child_environment(HERE), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for line, (kind, number) in zip(done.stdout.splitlines(), KILLS.items(), strict=True):
        assert line.startswith(f"{kind}: {number} kills")
