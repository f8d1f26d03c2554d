"""Tests share a process: each starts with the same random state, and must leave the process's settings unchanged."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

OTHERS = {
    "PYTEST_CURRENT_TEST",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TORCHINDUCTOR_CACHE_DIR",
    "HF_HUB_DISABLE_TELEMETRY",  # Gradio writes it again
}
"""Variables that pytest sets, and libraries when they are imported or first used."""


def settings() -> dict[str, Any]:
    """Settings by which one test could affect another, by name."""
    environment = {f"${name}": value for name, value in os.environ.items() if name not in OTHERS}
    return environment | {
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the working directory": os.getcwd(),
        "sys.path": [place for place in sys.path if not place.endswith("_vendor")],  # setuptools adds its own
        "the locale": locale.setlocale(locale.LC_ALL),
        "the root logger": (logging.root.level, list(logging.root.handlers)),
        "the handlers of signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def settings_stay() -> Iterator[None]:
    before = settings()
    yield
    after = settings()
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    torch.set_num_threads(before["torch's threads"])
    torch.set_default_dtype(before["torch's default dtype"])
    assert not changed, f"the test leaves changed: {', '.join(changed)}"


@pytest.fixture(autouse=True)
def own_runs(settings_stay: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of runs for the experiments of a test. It depends on the check of settings, so that it is undone before
    the check."""
    monkeypatch.setenv("POLYPATH_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"
