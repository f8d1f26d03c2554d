"""Fixtures and helpers of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

import polypath

pytest_plugins = ("browser", "deadline", "isolation")

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)
Module = TypeVar("Module", bound=nn.Module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long tests first, so that no worker is left with them at the end."""
    items.sort(key=lambda item: -max((mark.args[0] for mark in item.iter_markers("timeout")), default=0))


def randomise_norms(net: Module, seed: int = 0) -> Module:
    """Give every batch-norm different statistics and affine values, so that nothing is equal by accident."""
    g = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.2, generator=g)
            module.running_var.uniform_(0.5, 2.0, generator=g)
            if module.affine:
                nn.init.normal_(module.weight, 1.0, 0.2, generator=g)
                nn.init.normal_(module.bias, 0.0, 0.2, generator=g)
    return net


def assert_close(found: torch.Tensor, expected: torch.Tensor, within: float = 1e-5) -> None:
    """Equal up to rounding: no value differs by more than ``within`` times the largest expected one."""
    size = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=within * size)


def part(net: nn.Module, path: str) -> Any:
    """A submodule, untyped: the attributes of torch modules are known only at run time."""
    return net.get_submodule(path)


def gradient(x: torch.Tensor) -> torch.Tensor:
    """The gradient of ``x``, which has one."""
    assert x.grad is not None
    return x.grad


def child_environment(*folders: Path) -> dict[str, str]:
    """The environment of a process that imports the tested package and modules of these folders; one thread."""
    found = [*folders, Path(polypath.__file__).parents[1]]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, found))}


@pytest.fixture(scope="session", autouse=True)
def short_profiles():
    """Profile each path of a bundle for a tenth of a second, and only once even if the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polypath.deploy.latency_profile.SECONDS", 0.1)
        patch.setattr("polypath.deploy.latency_profile.TRIES", 1)
        yield


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """Folder of JPEG-coded CIFAR-10; tests that need it are skipped without it."""
    folder = Path(os.environ.get("POLYPATH_CIFAR10", ROOT.parent / "shared/data/cifar10-jpeg"))
    if not (folder / "data").is_dir():
        pytest.skip("no local CIFAR-10 (set POLYPATH_CIFAR10 to its folder)")
    return folder
