"""Times, memory and switches of a tiny network's paths in a runtime, and what paths share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import polypath as pp
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.families.fractalnet import FractalNet
from polypath.worth.deployed import deployed, runtime_name
from polypath.worth.loaded import resident
from polypath.worth.weights import bytes_of, shares


def net() -> PathNet:
    made = FractalNet(filters=(4, 4), columns=2, in_chans=1).build(0)
    made.config["normalisation"] = {"mean": (0.5,), "std": (0.5,)}
    made.config["image"] = {"size": (8, 8), "resize": None, "to": None}
    return made.eval()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_paths_are_timed_and_weighed_in_a_runtime(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    whole = net()
    paths = {name: whole.paths(name) for name in ("column=1", "whole")}
    twins = {name: pp.extract(whole, path) for name, path in paths.items()}
    stats = pp.recalibrate(whole, paths.values(), [(torch.rand(8, 1, 8, 8),)], 8)
    found = deployed(runtime, tmp_path / "d", whole, paths, stats, twins)
    assert json.loads(json.dumps(found)) == found
    assert (found["name"], list(found["times"])) == (runtime, ["column=1", "whole"])
    for row in found["times"].values():
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert "switch_ms" in row
    if resident() is not None:
        assert found["memory"]["net"] > 0
        assert found["memory"]["twins"] > 0
    stamp = (tmp_path / "d" / "net" / "manifest.json").stat().st_mtime_ns
    deployed(runtime, tmp_path / "d", whole, paths, BatchNormStatistics({}, 8, None), twins)
    assert (tmp_path / "d" / "net" / "manifest.json").stat().st_mtime_ns == stamp  # bundles are written once


def test_which_runtime_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_name(None) is None
    with pytest.raises(ValueError, match="runtime = 'tpu'"):
        runtime_name("tpu")
    monkeypatch.setattr("polypath.worth.deployed.installed", lambda name: name in ("onnxruntime", "torch"))
    monkeypatch.setattr("polypath.worth.deployed.check_installed", lambda _: None)
    assert runtime_name("auto") == "onnxruntime"
    with pytest.raises(ImportError, match="openvino"):
        runtime_name("openvino")

    def missing(_: str) -> None:
        raise ImportError("onnx is missing")

    monkeypatch.setattr("polypath.worth.deployed.check_installed", missing)
    assert runtime_name("auto") is None
    with pytest.raises(ImportError, match="onnx is missing"):
        runtime_name("torch")


def test_what_paths_share_counted_by_name() -> None:
    whole = net()
    paths = {name: whole.paths(name) for name in ("column=1", "column=2", "whole")}
    sizes = {name: p.numel() for name, p in whole.named_parameters()}
    head = sum(n for name, n in sizes.items() if name.startswith("head."))
    found = shares(whole, paths)
    for column in ("column=1", "column=2"):  # columns have nothing in common but the head
        own = sum(p.numel() for p in pp.extract(whole, column).parameters())
        assert found[column] == pytest.approx(head / own)
    assert found["whole"] == 1.0
    floats = [t for t in whole.state_dict().values() if t.is_floating_point()]
    assert bytes_of(whole) == 4 * sum(t.numel() for t in floats)
    assert bytes_of(whole, paths["column=1"]) < bytes_of(whole)
