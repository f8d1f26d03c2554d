"""``polypath search``: refusals, what it writes, and the commands that take what it found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from polypath.cli import main
from polypath.core.paths import Paths
from polypath.deploy.bundle import Bundle
from polypath.search.result import NAME, load_search
from polypath.training.run import DERIVED

TRAIN = [
    *("train", "crescendonet-digits", "--model.widths", "4", "4", "--model.scale", "2", "--model.hidden", "8"),
    *("--epochs", "1", "--device", "cpu", "--data.no-cache", "--data.train-images", "96", "--batch-size", "32"),
    *("--data.test-images", "60"),
]
SEARCH = ["--runtime", "none", "--num-images", "64", "--keep", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    assert main([*TRAIN, "--data.validation", "60", "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture
def mine(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "mine")


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert main([str(a) for a in argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_refusals_are_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(trained.iterdir())
    assert "annealing" in refused(capsys, "search", trained, "--method", "annealing")
    assert "'0' is not a whole number of at least 1" in refused(capsys, "search", trained, "--size", "0")
    assert "choose method beam" in refused(capsys, "search", trained, "--regret", *SEARCH)
    assert "no such run folder" in refused(capsys, "search", tmp_path / "nothing")
    for command in (["export", "--out", tmp_path / "bundle"], ["paths"], ["report"]):
        said = refused(capsys, command[0], trained, "--paths", "found", *command[1:])
        assert "no paths have been found yet; `polypath search" in said
    assert sorted(trained.iterdir()) == before
    assert not (tmp_path / "bundle").exists()


def test_a_run_that_held_nothing_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "all"
    assert main([*TRAIN, "--data.validation", "0", "--out", str(folder), "--json"]) == 0
    assert "held out (data.validation)" in refused(capsys, "search", folder, *SEARCH)


def test_paths_takes_what_was_found(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["search", str(mine), *SEARCH, "--json"]) == 0
    told, result = json.loads(capsys.readouterr().out), load_search(mine)
    assert told == json.loads(json.dumps(result.to_json()))
    assert NAME in DERIVED
    found = [row.paths for row in result.found]
    assert main(["paths", str(mine), "--paths", "found", "--repeats", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["paths"] for row in rows] == ["whole", *(text for text in found if text != "whole")]
    assert main(["search", str(mine), *SEARCH]) == 0
    said = capsys.readouterr()
    for word in (f"found: {found[0]}", "hypervolume on confirm images", "9 choices: exhaustive", "--paths found"):
        assert word in said.out
    weights = mine / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    said = refused(capsys, "paths", mine, "--paths", "found")
    assert "belongs to another checkpoint" in said


@pytest.mark.slow
def test_export_and_report_take_what_was_found(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert main(["search", str(mine), *SEARCH]) == 0
    found = [row.paths for row in load_search(mine).found]
    out = tmp_path / "bundle"
    assert main(["export", str(mine), "--paths", "found", "--keep", "--num-images", "64", "--out", str(out)]) == 0
    bundle = Bundle.open(out)
    assert {path.text for path in bundle.paths} == set(found)
    assert all(path.statistics for path in bundle.paths)
    page = tmp_path / "page.html"
    capsys.readouterr()
    options = ["--images", "40", "--out", str(page), "--json"]
    assert main(["report", str(mine), "--paths", "found", *options]) == 0
    assert set(json.loads(capsys.readouterr().out)["paths"]) == {"whole", *found}
    assert not (mine / "paths.json").exists()
    one = next(text for text in found if text != str(Paths()))
    assert main(["export", str(mine), "--format", "torch", "--paths", one, "--out", str(tmp_path / "one")]) == 0
