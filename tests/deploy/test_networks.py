"""Bundles of several networks: written, read, refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

import polypath as pp
from conftest import randomise_norms
from deploy.several import two_networks
from deploy.test_bundle import rewrite
from polypath.core.extras import installed
from polypath.deploy import AnytimePredictor, Bundle, BundleNetwork, heldout, latency_profile, write_networks
from polypath.deploy.bundle import SHIPPED
from polypath.deploy.candidates import HeldOut
from polypath.deploy.from_runs import names_of
from polypath.deploy.graph_check import GraphRefused
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.triton import write_repository
from polypath.explore.anytime import AnytimeSubject
from polypath.explore.view import look
from polypath.families.crescendonet import CrescendoNet
from polypath.families.resnet import ResNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
RUNTIMES = [name for name in ("onnxruntime", "openvino", "torch") if installed(name)]
ABOUT: dict[str, Any] = {
    "normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3},
    "image": {"size": [16, 16]},
    "classes": ["one", "two", "three"],
}
PATHS = {"thin": ["branches=1"], "deep": ["exit=1", "whole"]}


def nets() -> dict[str, pp.PathNet]:
    thin = CrescendoNet(widths=(4, 4), scale=2, hidden=(8,), num_classes=3).build(seed=0).eval()
    deep = ResNet(depth=8, width=8, exits=(1,), num_classes=3).build(seed=0).eval()
    for net in (thin, deep):
        randomise_norms(net)
        cast(Any, net.config).update(ABOUT)
    return {"thin": thin, "deep": deep}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A CrescendoNet and a ResNet with an exit, whose whole is right of half of the held-out images; its norms are
    recalibrated."""
    made = nets()
    x = torch.randn(100, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    stats = pp.recalibrate(made["deep"], PATHS["deep"], [(x,)])
    labels = pp.extract(made["deep"], "whole", stats=stats).eval()(x).argmax(1)
    labels[::2] = torch.arange(50) % 3
    held = HeldOut([(x, labels)], [(x, labels)])
    networks = {
        "thin": BundleNetwork(made["thin"], PATHS["thin"], None, held, about={"seed": 1}),
        "deep": BundleNetwork(made["deep"], PATHS["deep"], stats, held),
    }
    keep = [f"{name}:{text}" for name in PATHS for text in PATHS[name]]
    place = tmp_path_factory.mktemp("several") / "bundle"
    return write_networks(networks, place, keep=keep, name="both", about={"dataset": "noise"}), made, stats


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def test_what_is_written_says_which_network_each_path_is_of(several):
    bundle, made, stats = several
    values = json.loads((bundle.folder / "manifest.json").read_text())
    assert values["format_version"] == 2
    assert {path["name"]: path["network"] for path in values["paths"]} == {
        "thin:branches=1": "thin",
        "deep:exit=1": "deep",
        "deep:whole": "deep",
    }
    assert all((path["precision"], path["errors"]) == ("f32", {}) for path in values["paths"])
    assert all(path["error"] is not None and path["test_error"] is not None for path in values["paths"])
    assert [path["macs"] for path in values["paths"]] == sorted(path["macs"] for path in values["paths"])
    assert values["networks"]["thin"] == {"family": "crescendonet", "about": {"seed": 1}}
    assert values["networks"]["deep"]["about"]["statistics"] == stats.record
    assert "family" not in values
    assert "crescendonet, resnet, 3 paths, 3 classes" in repr(bundle)
    for name, net in made.items():
        assert set(pp.load(bundle.folder / name).state_dict()) == set(net.state_dict())
    card = (bundle.folder / "README.md").read_text()
    assert "(thin/README.md): crescendonet" in card
    assert "| deep:whole |" in card
    assert "| whole |" in (bundle.folder / "deep" / "README.md").read_text()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_are_each_network_s_own(several, images, runtime):
    bundle, made, stats = several
    predictor = AnytimePredictor(bundle, runtime, 1, profile=0.001)
    x = torch.from_numpy(predictor.prepared(images))
    for path in bundle.paths:
        own = pp.extract(made[path.network], path.text, stats=stats if path.network == "deep" else None).eval()
        with torch.inference_mode():
            wanted = (own(x) / path.temperature).softmax(1).numpy()
        answer = predictor.predict(images, path=path.name)
        np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
        assert answer.path == path.name
    # up the ladder, whatever the rungs average: steps build on those of their own network only
    for rung in bundle.ladder:
        assert rung.step is None or all(slot == "input" or slot.startswith("deep:") for slot in rung.step.reads)
    alone = {path.name: predictor.predict(images, path=path.name).probabilities for path in bundle.paths}
    answers = list(predictor.predict_until(images, time.monotonic() + 1e3))
    assert [answer.path for answer in answers] == [rung.path for rung in bundle.ladder]
    for answer, rung in zip(answers, bundle.ladder, strict=True):
        mean = np.mean([alone[name] for name in rung.combine], axis=0)
        np.testing.assert_allclose(answer.probabilities, mean, atol=1e-5)


def test_a_step_reads_what_its_own_network_has_left(several):
    bundle = several[0]
    rungs = {rung.path: rung for rung in bundle.ladder}
    assert "deep:whole" in rungs
    if "deep:exit=1" in rungs:
        step = rungs["deep:whole"].step
        assert step.files["onnx"].startswith("deep/step-")
        assert set(step.reads) == set(rungs["deep:exit=1"].step.leaves)


def test_budgets_choose_among_all_networks(tmp_path, monkeypatch):
    """The times say which network is faster, not the MACs."""
    bundle = Bundle.open(two_networks(tmp_path / "two", link=True))
    best = {"a": {path.name: 2.0 + i for i, path in enumerate(bundle.paths) if path.network == "a"}}
    best["b"] = {path.name: 1.0 for path in bundle.paths if path.network == "b"}
    times = {name: [ms] * 50 for of in best.values() for name, ms in of.items()}
    monkeypatch.setattr(latency_profile, "measure", lambda tasks, seconds=None: {name: times[name] for name in tasks})
    predictor = AnytimePredictor(bundle, "torch", 1)
    least = min(path.error for path in bundle.paths if path.error is not None)
    assert predictor.choose(1.5).startswith("b:")
    assert bundle.path(predictor.choose(1.5)).error == least
    assert predictor.choose(1e3).startswith("a:")  # as accurate, as many MACs: the first


def test_a_short_name_is_enough_if_it_is_unique(several):
    bundle = several[0]
    assert bundle.path("deep:whole") is bundle.path("whole")
    with pytest.raises(ValueError, match="'x:whole' is not in this bundle: give one of"):
        bundle.path("x:whole")
    with pytest.raises(ValueError, match=r"this bundle has several networks; use one of thin, deep"):
        _ = bundle.net
    assert bundle.networks["deep"].net.num_classes == 3
    assert bundle.networks["deep"].statistics is not None
    assert bundle.networks["thin"].statistics is None
    kept = bundle.with_paths(["thin:branches=1", "deep:whole"])
    assert [path.name for path in kept.paths] == ["thin:branches=1", "deep:whole"]


def test_a_text_of_two_networks_must_say_which(tmp_path):
    bundle = Bundle.open(two_networks(tmp_path / "two", link=True))
    with pytest.raises(ValueError, match="path 'whole' is in several networks: give one of a:whole, b:whole"):
        bundle.path("whole")


def test_one_network_is_written_as_ever(several, tmp_path):
    made = several[1]
    pp.write_bundle(made["thin"], tmp_path / "one", ["branches=1"])
    values = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert values["format_version"] == 1
    assert values["family"] == "crescendonet"
    assert "networks" not in values
    assert not {"network", "precision", "errors"} & values["paths"][0].keys()


# --- refused before any work ---------------------------------------------------------------------------------


def changed(**about: Any) -> dict[str, BundleNetwork]:
    made = nets()
    cast(Any, made["deep"].config).update(about)
    return {name: BundleNetwork(net, PATHS[name]) for name, net in made.items()}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"classes": ["one", "two", "\x1b]four"]}, r"class 2 is '\\x1b]four' and 'three'"),
        ({"classes": ["two", "one", "three"]}, "the same classes in different orders"),
        ({"image": {"size": [24, 24]}}, r"prepared differently \(size is \(24, 24\) and \(16, 16\)"),
        ({"image": {"size": [16, 16], "resize": "pad"}}, "resize is pad and crop"),
        ({"normalisation": {"mean": [0.4] * 3, "std": [0.2] * 3}}, r"mean is \(0.4, 0.4, 0.4\) and"),
    ],
)
def test_networks_that_differ_are_refused_by_name(about, words, tmp_path):
    with pytest.raises(ValueError, match=f"network 'deep' cannot be in one bundle with 'thin': .*{words}"):
        write_networks(changed(**about), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_held_out_images_are_refused(tmp_path):
    networks = changed()
    x = torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 3
    held = HeldOut([(x, y)])
    for other, words in (
        (None, "one of them has held-out images, and the other has none"),
        (HeldOut([(x, y)], seed=1), "are split by seeds 1 and 0"),
        (HeldOut([(x, y.flip(0))]), "'deep': its images have other labels than those of 'thin'"),
    ):
        both = {"thin": replace(networks["thin"], held_out=held), "deep": replace(networks["deep"], held_out=other)}
        with pytest.raises(ValueError, match=words):
            write_networks(both, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_of_networks_are_names_of_folders(tmp_path):
    one = changed()["thin"]
    for names, words in (
        (["../x"], r"network '\.\./x': the name must consist of 1 to 100 letters"),
        (["manifest.json"], "the name must consist of 1 to 100 letters"),
        (["A", "a"], "network 'a': two networks have this name"),
        ([], "give at least one network"),
    ):
        with pytest.raises(ValueError, match=words):
            write_networks(dict.fromkeys(names, one), tmp_path / "out")
    with pytest.raises(ValueError, match=r"networks\['a'\] is of type PathNet: must be a BundleNetwork"):
        write_networks({"a": one.net}, tmp_path / "out")  # pyright: ignore[reportArgumentType]


def test_names_come_from_folders(tmp_path):
    places = [tmp_path / place for place in ("x/seed 0", "y/seed 0", "z/gunn.15")]
    assert list(names_of(places)) == ["x-seed-0", "y-seed-0", "z-gunn-15"]
    assert list(names_of(places[1:])) == ["seed-0", "gunn-15"]
    with pytest.raises(ValueError, match="given twice"):
        names_of([places[0], tmp_path / "y" / ".." / "x" / "seed 0"])


def test_only_paths_of_its_own_network_make_one_worthless():
    labels = torch.arange(600) % 3
    right = torch.nn.functional.one_hot(labels, 3).float() * 4
    half = torch.where((torch.arange(600) % 2 == 0)[:, None], right, right.roll(1, 1))
    logits, macs = {"a:1": right, "a:2": half, "b:1": half}, {"a:1": 1, "a:2": 2, "b:1": 3}
    own = {name: name[0] for name in logits}
    assert heldout.decide(logits, labels, macs, seed=0).names == ["a:1"]
    assert heldout.decide(logits, labels, macs, seed=0, networks=own).names == ["a:1", "b:1"]


# --- files of others -----------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    return two_networks(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(format_version=3), "format_version = 3: this Polypath reads versions 1 to 2"),
        (lambda v: v.update(format_version=1), "format_version 1 must have only one network in f32"),
        (
            lambda v: v.update(networks={}),
            "format_version 2 must have several networks or a precision other than f32",
        ),
        (lambda v: v["networks"].update({"../c": v["networks"]["a"]}), r"'\.\./c' cannot be the name of a folder"),
        (lambda v: v["networks"].update(c=v["networks"]["a"]), "'c' has no file config.json"),
        (lambda v: v["networks"]["a"].pop("family"), r"networks\['a'\] lacks the field 'family'"),
        (lambda v: v["files"].pop("b/model.safetensors"), "'b' has no file model.safetensors"),
        (lambda v: v["files"].update({"a/../x": v["files"]["a/config.json"]}), r"'\.\./x' is not a plain file name"),
        (lambda v: v["files"].update({"a/b/x": v["files"]["a/config.json"]}), "'b/x' is not a plain file name"),
        (lambda v: v["files"].update({"c/x": v["files"]["a/config.json"]}), "'c/x' is not a plain file name"),
        (lambda v: v["files"].update({"a": v["files"]["a/config.json"]}), "'a' cannot be the name of a folder"),
        (lambda v: v["files"].pop("a/statistics.safetensors"), "'a/statistics.safetensors' is used, but has no"),
        (lambda v: v["paths"][0].update(network="c"), "'a:column=1' is of network 'c': must be one of a, b"),
        (lambda v: v["paths"][0].pop("network"), "is of network ''"),
        (lambda v: v["paths"][0].update(network="b"), "'a/column=1.onnx' is used by a path of another network"),
        (lambda v: v["paths"][0]["files"].update(onnx="held_out.safetensors"), "used by a path of another network"),
        (lambda v: v.update(paths=[p for p in v["paths"] if p["network"] == "a"]), "'b' has no path"),
        (
            lambda v: v["paths"][0].update(precision="int8"),
            "'a:column=1' in int8 must state its errors by kind of instructions",
        ),
        (lambda v: v["paths"][0].update(errors={"avx2": {"error": 101}}), r"error = 101: expected a number <= 100"),
        (lambda v: v["paths"][0].update(name="b:column=1"), "two paths have the name"),
    ],
)
def test_values_that_cannot_be_are_refused(two, change, words):
    rewrite(two, change)
    with pytest.raises(ValueError, match=words):
        Bundle.open(two)


def test_fields_of_later_revisions_are_passed_over(two):
    rewrite(two, lambda v: [v["networks"]["a"].update(new=1), v["paths"][0].update(new=2, errors={"avx2": {"new": 3}})])
    assert len(Bundle.open(two).paths) == 2 * len(Bundle.open().paths)


@pytest.mark.parametrize("location", ["../b/model.safetensors", "b/model.safetensors", "../held_out.safetensors"])
def test_a_graph_reads_weights_of_its_own_network_only(two, location):
    from deploy.test_graph_check import external, sealed

    file = two / "a" / "column=1.onnx"
    model = onnx.load(file, load_external_data=False)
    next(entry for entry in external(model).external_data if entry.key == "location").value = location
    file.write_bytes(model.SerializeToString())
    sealed(two)
    with pytest.raises(GraphRefused, match=f"is read from '{location}'; the allowed files are: model"):
        open_runtime("onnxruntime", Bundle.open(two), 1).prepare("a:column=1", 1)


def test_a_damaged_file_of_a_network_is_named(two):
    (two / "b" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b/model\.safetensors is damaged"):
        Bundle.open(two)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_links_are_read(runtime, tmp_path, bundle):
    linked = Bundle.open(two_networks(tmp_path / "two", link=True))
    x = np.zeros((1, 3, *bundle.size), np.float32)
    found = open_runtime(runtime, linked, 1).prepare("b:column=1", 1)(x)
    assert np.array_equal(found, open_runtime(runtime, bundle, 1).prepare("column=1", 1)(x))


def test_each_path_stays_compiled_at_each_batch_size(tmp_path, monkeypatch):
    """With any number of networks: otherwise an answer would wait for a compiler."""
    pytest.importorskip("openvino")
    from polypath.deploy.runtimes import openvino_

    made = []
    monkeypatch.setattr(openvino_, "compiled_many", lambda *options: made.append(options[1:]) or (lambda x: [x]))
    bundle = Bundle.open(two_networks(tmp_path / "two", link=True))
    monkeypatch.setattr(bundle.graphs, "file", lambda path: path.name)
    opened = openvino_.OpenVino(bundle, 1, "f32")
    for _ in range(2):
        for batch in (2**i for i in range(9)):
            for path in bundle.paths:
                opened.prepare(path.name, batch)
    assert len(made) == 9 * len(bundle.paths) > openvino_.KEPT


# --- what runs it --------------------------------------------------------------------------------------------


def test_triton_has_a_model_a_path_of_each_network(several, tmp_path):
    names = write_repository(several[0], tmp_path / "repository")
    assert names == [f"both_{path.name.replace(':', '_').replace('=', '_')}" for path in several[0].paths]
    model = onnx.load(tmp_path / "repository" / names[0] / "1" / "model.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_page_shows_the_network_of_the_path_that_runs(several, images):
    from explore.subjects import picture

    subject = AnytimeSubject(AnytimePredictor(several[0], "torch", 1, profile=0.001))
    drawn = {name: path.wiring for name, path in subject.paths.items()}
    assert drawn["deep:whole"] is drawn["deep:exit=1"] is not drawn["thin:branches=1"]
    view = look(subject, picture(size=16), 1e6)
    assert view.path in drawn
    assert sum(view.answer.values()) == pytest.approx(1.0)
    assert view.wiring == look(subject, picture(size=16), 1e6).wiring
    assert "<svg" in look(subject, None, 1e-6).wiring  # nothing runs: a diagram without light


def test_the_shipped_bundle_is_of_one_network(bundle):
    assert list(bundle.networks) == [""]
    assert bundle.networks[""].folder == SHIPPED
    assert bundle.net is bundle.networks[""].net
