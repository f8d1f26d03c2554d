"""``polypath export`` of several runs, and what the commands do with the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import polypath as pp
from deploy.several import two_networks
from polypath.cli import main
from polypath.data.config import AugmentConfig
from polypath.deploy import Bundle
from polypath.families.resnet import ResNet
from polypath.training.path_objectives import Exits
from training.tiny import tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two networks of other families on the same images; a third run holds others out."""
    place = tmp_path_factory.mktemp("runs")
    resnet = {
        "model": ResNet(depth=8, width=4, exits=(1,), in_chans=1),
        "objective": Exits(),
        "data__augment": AugmentConfig(),
    }
    for name, changes in {"thin": {}, "deep": resnet, "other": {"data__validation": 50}}.items():
        pp.train(tiny(epochs=1, data__normalise="none", **changes), place / name, quiet=True)
    return {name: place / name for name in ("thin", "deep", "other")}


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


@pytest.mark.slow
def test_runs_become_one_bundle(runs, tmp_path, capsys):
    out, keep = tmp_path / "both", ["--keep", "--no-recalibrate"]
    asked = ["--paths", "whole", "--paths", "deep:exit=1", "--note", "of digits"]
    assert export(runs["thin"], runs["deep"], "--out", out, *asked, *keep) == 0
    told = capsys.readouterr().out
    assert "thin: batch-norm not recalibrated" in told
    values = json.loads((out / "manifest.json").read_text())
    assert {path["name"] for path in values["paths"]} == {"thin:whole", "deep:whole", "deep:exit=1"}
    assert all(path["error"] is not None and path["test_error"] is not None for path in values["paths"])
    assert values["about"]["dataset"] == "digits"
    assert values["about"]["held_out"]["images"] == {"choose": 24, "calibrate": 12, "stop": 24}
    assert values["networks"]["deep"]["about"]["recipe"]["model"]["family"] == "resnet"
    assert "- of digits" in (out / "README.md").read_text()
    image = tmp_path / "digit.png"
    Image.new("L", (8, 8), 200).save(image)
    ask = ["--runtime", "torch", "--threads", "1", "--json"]
    assert main(["predict", str(out), str(image), "--path", "thin:whole", *ask]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "thin:whole"
    assert main(["predict", str(out), str(image), "--path", "whole", *ask]) == 2
    assert "is in several networks: give one of" in capsys.readouterr().err


def test_what_cannot_be_one_bundle_is_said_in_a_line(runs, tmp_path, capsys):
    out = tmp_path / "out"
    names = Path(shutil.copytree(runs["deep"], tmp_path / "renamed"))
    net = pp.load(names / "model")
    shutil.rmtree(names / "model")
    pp.save(net, names / "model", classes=[f"class {i}" for i in range(10)])
    larger = Path(shutil.copytree(runs["deep"], tmp_path / "larger"))
    pp.save(net, larger / "model", overwrite=True, mean=[0.5], std=[0.5], image_size=12)
    for sources, words in (
        ([runs["thin"], tmp_path / "renamed"], "'renamed' cannot be in one bundle with 'thin': their classes are not"),
        ([runs["thin"], larger], "'larger' cannot be in one bundle with 'thin': their images are prepared differently"),
        ([runs["thin"], runs["other"]], "their held-out images differ (50 and 60 images)"),
        ([runs["thin"], runs["thin"].parent / "." / "thin"], "given twice"),
        ([runs["thin"], runs["deep"] / "model"], "is not a run, unlike the others, so its training images are unknown"),
        ([runs["thin"], runs["deep"], "--format", "onnx"], "--format onnx: accepts one run or network"),
        (
            [runs["thin"], runs["deep"], "--paths", "flat:whole"],
            "there is no network 'flat'; the networks are thin, deep",
        ),
        ([runs["thin"], runs["deep"], "--paths", "exit=1"], "network 'thin': path 'exit=1': unknown key 'exit'"),
        ([runs["thin"], tmp_path / "none"], "none"),
    ):
        assert export(*sources, "--out", out) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
        assert not out.exists()


def test_saved_networks_become_one_bundle(runs, tmp_path, capsys):
    places = [Path(shutil.copytree(runs[name] / "model", tmp_path / name)) for name in ("thin", "deep")]
    assert export(*places, "--out", tmp_path / "out", "--paths", "thin:branches=1", "--paths", "deep:exit=1") == 0
    capsys.readouterr()
    bundle = Bundle.open(tmp_path / "out")
    assert {path.name: path.error for path in bundle.paths} == {"thin:branches=1": None, "deep:exit=1": None}


def test_serve_answers_by_paths_of_both(tmp_path):
    pytest.importorskip("fastapi")
    from polypath.cli.serve import make_model
    from polypath.serve.app import App
    from polypath.serve.limits import Key
    from polypath.serve.service import Options
    from serve.fake import image_bytes, parsed, post, raw, served

    model = make_model(two_networks(tmp_path / "two", link=True), "torch", 1, 0.001)
    with served(App(model, Options(max_batch=1), Key(None))) as port:
        for path in ("a:column=1", "b:column=1"):
            status, _, body = parsed(raw(port, post(image_bytes(3), "image/png", f"path={path}&budget_ms=20000")))
            assert (status, body["path"]) == (200, path)
        status, _, body = parsed(raw(port, b"GET /v1/paths HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert [row["name"] for row in body["paths"]] == [path.name for path in model.paths]
