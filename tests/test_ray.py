"""Tests on a Ray cluster, each file in a separate process: Ray leaves signal handlers and variables behind."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import child_environment

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", ["serve/ray_service.py", "training/ray_sweep.py"])
def test_on_a_ray_cluster(file: str) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cov", "-o", "timeout=0", f"tests/{file}"]
    done = subprocess.run(command, env=child_environment(), cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
