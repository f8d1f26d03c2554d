"""The shipped bundle, a separate cache, and times that do not depend on the machine."""

from __future__ import annotations

import functools
import importlib.util
import shutil

import numpy as np
import pytest

from polypath.deploy import latency_profile
from polypath.deploy.bundle import SHIPPED, Bundle

PATHS = [path.name for path in Bundle.open().paths]
"""The shipped bundle's, the cheapest first."""
COST = dict(zip(PATHS, np.linspace(1.0, 5.0, len(PATHS)).tolist(), strict=True))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("POLYPATH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_registry():
    """The exporter rereads its table of operators each time, which is a third of a small network's export."""
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def bundle():
    return Bundle.open()


@pytest.fixture
def copied(tmp_path):
    """A copy of the shipped bundle, to be damaged."""
    folder = tmp_path / "bundle"
    shutil.copytree(SHIPPED, folder)
    return folder


@pytest.fixture
def set_times(monkeypatch):
    """Profiles say 1 ms for the cheapest path and 5 for the whole network; observed times are ignored. Returns the list
    of profiles made."""
    made = []

    def measure(tasks, seconds=None):
        made.append(list(tasks))
        return {name: [COST[name]] * 50 for name in tasks}

    monkeypatch.setattr(latency_profile, "measure", measure)
    monkeypatch.setattr("polypath.deploy.latency.PathLatency.observe", lambda self, ms, now: None)
    return made


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
