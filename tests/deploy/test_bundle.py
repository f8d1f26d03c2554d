from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import polypath as pp
from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import Bundle, rank
from polypath.deploy.manifest import BundlePath


def rewrite(folder, change):
    """Change the manifest and give it a digest that fits."""
    file = folder / manifests.NAME
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values | {"digest": manifests.digest(values)}))


def test_the_shipped_bundle_is_whole_and_small(bundle):
    names = [p.name for p in bundle.paths]
    assert (names[0], names[-1]) == ("column=1", "whole")
    assert len(set(names)) == len(names) >= 5
    assert len(bundle.classes) == 10
    assert bundle.size == (32, 32)
    assert [p.macs for p in bundle.paths] == sorted(p.macs for p in bundle.paths)
    assert sum(facts["bytes"] for facts in bundle.manifest.files.values()) < 8 * 2**20
    assert bundle.formats == {"onnx"}
    assert len(bundle.wiring.joins) == 4
    assert sorted(bundle.manifest.files) == sorted(f.name for f in bundle.folder.iterdir() if f.name != manifests.NAME)


def test_it_is_a_short_line_and_a_notebook_shows_its_paths(bundle):
    assert len(repr(bundle)) < 100 + len(str(bundle.folder))
    assert len(repr(bundle.manifest)) < 100
    for text in (repr(bundle), repr(bundle.manifest)):
        assert f"fractalnet, {len(bundle.paths)} paths, 10 classes" in text
    named = replace(bundle, manifest=replace(bundle.manifest, name='<a & "b">'))
    root: Any = ElementTree.fromstring(named._repr_html_())
    assert [row.find("th").text for row in root.iter("tr")][1:] == [path.name for path in bundle.paths]
    assert f"{bundle.paths[0].error:.2f}%" in [cell.text for cell in root.iter("td")]
    assert '<a & "b">' in root.find("caption").text


def test_weights_stand_once_and_graphs_do_not_choose(bundle):
    """Graphs are small, since convs are in the shared file; batch-norms are not folded."""
    onnx = pytest.importorskip("onnx")
    for path in bundle.paths:
        file = bundle.folder / path.files["onnx"]
        model = onnx.load(file, load_external_data=False)
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"If", "Loop", "Scan"}
        assert "BatchNormalization" in kinds
        held = {i.name: {e.key: e.value for e in i.external_data} for i in model.graph.initializer if i.external_data}
        convs = [name for name in held if name.endswith("conv.weight")]
        assert len(convs) >= 4
        assert {held[name]["location"] for name in convs} == {"model.safetensors"}
        norms = [name for name in held if name.endswith("running_mean")]
        assert {held[name]["location"] for name in norms} == {"statistics.safetensors"}


def test_the_same_conv_is_the_same_bytes_in_two_graphs(bundle):
    onnx = pytest.importorskip("onnx")
    places = []
    for name in (bundle.paths[-2].name, "whole"):
        model = onnx.load(bundle.folder / bundle.path(name).files["onnx"], load_external_data=False)
        places.append({i.name: sorted((e.key, e.value) for e in i.external_data) for i in model.graph.initializer})
    both = [key for key in places[0] if key in places[1]]
    convs = [key for key in both if key.endswith("conv.weight")]
    assert len(convs) >= 4
    assert all(places[0][key] == places[1][key] != [] for key in convs)
    norm = [key for key in both if key.endswith("norm.running_mean")][-1]
    assert places[0][norm] != places[1][norm]


@pytest.mark.parametrize("name", ["model.safetensors", "statistics.safetensors", "whole.onnx", "held_out.safetensors"])
def test_a_damaged_or_missing_file_is_named(copied, name):
    file = copied / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged: its checksum"):
        Bundle.open(copied)
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=f"{name} is damaged: it has"):
        Bundle.open(copied, verify=False)
    file.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Bundle.open(copied)


def test_a_damaged_manifest_is_refused(copied):
    file = copied / manifests.NAME
    text = file.read_text()
    for bad, words in (
        (text.replace("32", "33", 1), "digest"),
        (text[: len(text) // 2], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "polypath-bundle"),
        (" " * (manifests.LARGEST + 1), "bytes"),
    ):
        file.write_text(bad)
        with pytest.raises(ValueError, match=words):
            Bundle.open(copied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(format_version=2), "format_version 2 must have"),
        (lambda v: v["files"].update({"../evil": {"sha256": "", "bytes": 0}}), "not a plain file name"),
        (lambda v: v["paths"][0]["files"].update(onnx="other.onnx"), "no checksum"),
        (lambda v: v["paths"][0].update(temperature=0), "temperature"),
        (lambda v: v["paths"][0].update(error=float("nan")), r"paths\[0\].error = nan: must be a finite number"),
        (lambda v: v["paths"][0].update(error=101), r"paths\[0\].error = 101: expected a number <= 100"),
        (lambda v: v["paths"][0].update(depth=[1]), r"paths\[0\].depth = \[1\]: expected a list of length 2, got 1"),
        (lambda v: v["paths"][1].pop("macs"), r"paths\[1\] lacks the field 'macs'"),
        (lambda v: v["paths"][1].update(name=v["paths"][0]["name"]), "two paths have the name"),
        (lambda v: v["files"]["whole.onnx"].pop("bytes"), r"files\['whole.onnx'\] lacks the field 'bytes'"),
        (lambda v: v.update(paths=[]), r"paths = \[\]: expected a list of length >= 1"),
        (lambda v: v.update(classes=["one"]), "classes"),
        (lambda v: v["ladder"][0].update(path="column=9"), "no path 'column=9'"),
        (lambda v: v["ladder"][0].update(combine=["whole"]), "have not run"),
        (lambda v: v["image"].update(size=[0, 32]), "image"),
        (lambda v: v["image"].update(to=10**6), "image.to = 1000000: expected a whole number <= 8192"),
        (lambda v: v["files"].update({"x" * 300: {"sha256": "", "bytes": 0}}), "File name too long"),
    ],
)
def test_values_that_cannot_be_are_refused(copied, change, words):
    rewrite(copied, change)
    with pytest.raises(ValueError, match=words):
        Bundle.open(copied)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        Bundle.open(tmp_path / "x")
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        Bundle.open(tmp_path)


def test_an_unknown_path_lists_those_that_there_are(bundle):
    with pytest.raises(ValueError, match="column=1"):
        bundle.path("column=9")
    assert bundle.path("whole").text == "whole"


def test_a_path_is_extracted_with_its_own_norms(bundle):
    net, text = bundle.net, bundle.paths[1].text
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        mine, bare = bundle.extracted(text)(x), net(x, paths=text)
    assert not torch.allclose(mine, bare)


def test_the_most_accurate_is_first_and_unscored_ones_last():
    def path(name, error, macs):
        return BundlePath(name=name, text=name, macs=macs, params=1, depth=(1, 1), error=error)

    rows = (path("a", 9.0, 1), path("b", 5.0, 9), path("c", 5.0, 4), path("d", None, 7), path("e", None, 8))
    assert [p.name for p in rank(rows)] == ["c", "b", "a", "e", "d"]


def test_a_saved_network_is_a_bundle_of_its_named_paths(tmp_path):
    net = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), scale=2).eval()
    rows = [{"name": "whole", "error": 10.0}, {"name": "branches=1", "error": 20.0}]
    pp.save(net, tmp_path / "bare")
    with pytest.raises(ValueError, match="normalisation"):
        Bundle.open(tmp_path / "bare")
    pp.save(net, tmp_path / "net", mean=[0.5] * 3, std=[0.2] * 3, image_size=16, path_table=rows)
    found = Bundle.open(tmp_path / "net")
    assert len(found.paths) == len(net.named_paths())
    assert found.path("branches=1").error == 20.0
    assert found.path("branches=2").error is None
    answer = pp.AnytimePredictor(found, "torch", threads=1).predict(torch.zeros(1, 16, 16, 3).byte().numpy())
    assert answer.path == "whole"
    with pytest.raises(ValueError, match="no ONNX graphs"):
        pp.AnytimePredictor(found, "onnxruntime")
