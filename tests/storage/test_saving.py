"""Saving and loading: bit-exact, atomic, and nothing but tensors and JSON is read."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import polypath as pp
from conftest import part, randomise_norms
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.builder import NetBuilder
from polypath.storage.batchnorm import load_statistics, save_statistics
from polypath.storage.config import read_config
from polypath.storage.layout import FILES

SMALL = {
    "crescendonet": ("crescendonet_32", {"widths": (4, 6, 8), "hidden": (12, 8)}),
    "fractalnet": ("fractalnet16_small", {"filters": (4, 8, 8)}),
    "fractalnet, own norms": ("fractalnet16_small", {"filters": (4, 8), "own_norms": True, "transitions": (2,)}),
    "resnet": ("resnet110_cifar", {"depth": 14}),
}


def small(kind="crescendonet", seed=0, **changes):
    name, arguments = SMALL[kind]
    return randomise_norms(pp.create_model(name, seed=seed, **arguments, **changes), seed)


@pytest.fixture
def saved(tmp_path):
    pp.save(small(), tmp_path / "net", classes=[f"c{i}" for i in range(10)], mean=(0.5,) * 3, std=(0.2,) * 3)
    return tmp_path / "net"


def edit(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))


@pytest.mark.parametrize("kind", SMALL)
def test_a_round_trip_is_exact(kind, tmp_path):
    net, x = small(kind), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    last = list(net.named_paths())[-1]
    child = pp.extract(net, last)
    for i, given in enumerate((net, pp.extract(net, "whole"), child)):
        pp.save(given.train(), tmp_path / str(i))
        assert given.training
        loaded = pp.load(tmp_path / str(i))
        assert not any(module.training for module in loaded.modules())
        state = loaded.state_dict()
        assert list(state) == list(given.state_dict())
        assert all(torch.equal(state[key], t) and state[key].dtype == t.dtype for key, t in given.state_dict().items())
        assert loaded.config == given.config
        assert loaded.wiring == given.wiring
        assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in given.parameters()]
        with torch.inference_mode():
            assert torch.equal(loaded(x), given.eval()(x))
    with torch.inference_mode():
        assert not torch.equal(pp.load(tmp_path / "2")(x), net(x))
        other = small(kind, seed=1).eval()
        assert not torch.equal(pp.load(tmp_path / "0")(x), other(x))


def test_two_saves_of_one_network_are_the_same_bytes(tmp_path):
    """Statistics have three entries of metadata, which their writer would put in any order."""
    net = small()
    bank = {"norm": (torch.zeros(3), torch.ones(3))}
    for name in ("a", "b"):
        pp.save(net, tmp_path / name)
        save_statistics(BatchNormStatistics({net.paths("branches=1"): bank}, 7, 0), tmp_path / name / "statistics")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    header = (tmp_path / "a" / "statistics").read_bytes()
    names = list(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"])
    assert names == sorted(names)
    assert load_statistics(tmp_path / "a" / "statistics")[net.paths("branches=1")]["norm"][1].tolist() == [1, 1, 1]


def test_extracted_twice_and_saved(tmp_path):
    net, x = small().eval(), torch.randn(2, 3, 16, 16)
    once = pp.extract(net, "branches=1,3/2/1,2,3,4")
    twice = pp.extract(once, "block1.join=3;block3.join=2,4")
    pp.save(twice, tmp_path / "twice")
    loaded = pp.load(tmp_path / "twice")
    with torch.inference_mode():
        assert torch.equal(loaded(x), net(x, paths="branches=3/2/2,4"))
        assert not torch.equal(loaded(x), once(x))
    again = pp.extract(loaded, "block3.join=4")
    pp.save(again, tmp_path / "again")
    with torch.inference_mode():
        assert torch.equal(pp.load(tmp_path / "again")(x), net(x, paths="branches=3/2/4"))


@pytest.mark.parametrize("classes", [0, 3, 10])
def test_a_new_head_is_saved(classes, tmp_path, saved):
    net = pp.load(saved)
    net.reset_classifier(classes)
    pp.save(net, tmp_path / "head")
    loaded, x = pp.load(tmp_path / "head"), torch.randn(2, 3, 16, 16)
    assert loaded.num_classes == classes
    assert "classes" not in loaded.config  # they were another head's
    with torch.inference_mode():
        assert loaded(x).shape == (2, classes or 8)
        assert torch.equal(loaded(x), net(x))


def test_a_run_says_where_its_network_is(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run/model")
    for opener in (pp.load, pp.AnytimePredictor, pp.Bundle.open):
        with pytest.raises(
            ValueError, match=r"this is a run: its network is in .*model, and `polypath export .*run` writes a bundle"
        ):
            opener(tmp_path / "run")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"this is an unfinished run: continue it with `polypath resume .*begun`"):
        pp.Bundle.open(tmp_path / "begun")
    with pytest.raises(ValueError, match="source = 3: must be a folder, or a Hub name"):
        pp.load(3)  # pyright: ignore[reportArgumentType]


def test_names_that_are_not_the_heads_are_refused(tmp_path, saved):
    net = pp.load(saved)
    net.config["classes"] = ["a", "b"]
    with pytest.raises(ValueError, match="2 names, but the network's head has 10 outputs"):
        pp.save(net, tmp_path / "other")
    with pytest.raises(ValueError, match="2 names"):
        _ = net.class_names
    pp.save(net, tmp_path / "other", classes=list("0123456789"))
    assert pp.load(tmp_path / "other").class_names == tuple("0123456789")
    assert small().class_names == tuple("0123456789")  # by number, where there are no names


def test_networks_of_0_1_with_fewer_names_than_outputs_are_read(tmp_path, saved):
    for names in (["a", "b"], [str(i) for i in range(11)]):
        folder = tmp_path / str(len(names))
        shutil.copytree(saved, folder)
        (folder / "config.json").write_text(json.dumps({**read_config(folder), "classes": names}))
    assert pp.load(tmp_path / "2").class_names == ("a", "b", *(f"unused {i}" for i in range(2, 10)))
    with pytest.raises(ValueError, match="11 classes, but the head has 10 outputs"):
        pp.load(tmp_path / "11")


def test_numbers_of_numpy_and_torch_are_saved(tmp_path):
    labels = np.array([0, 2, 1])
    facts: dict[str, Any] = {
        "classes": np.unique(["a", "c", "b"]),
        "image_size": np.int64(32),
        "resize_to": np.int32(36),
        "path_table": [{"name": "whole", "error": np.float32(1.5), "params": np.int64(3), "per_class": labels}],
    }
    normalisation: Any = {"mean": torch.full((3,), 0.5), "std": np.full(3, 0.25, np.float32)}
    counts: list[Any] = [labels.max() + 1, torch.tensor(3), np.uint8(3)]
    for i, count in enumerate(counts):
        net = small(num_classes=count)
        net.reset_classifier(count)
        net.config["normalisation"] = normalisation
        pp.save(net, tmp_path / str(i), **facts)
        loaded = pp.load(tmp_path / str(i))
        assert (loaded.num_classes, loaded.class_names) == (3, ("a", "b", "c"))
        assert loaded.config.get("normalisation") == {"mean": [0.5] * 3, "std": [0.25] * 3}
        assert loaded.config.get("image") == {"size": [32, 32], "resize": None, "to": 36}
        row = {"name": "whole", "error": 1.5, "params": 3, "per_class": [0, 2, 1]}
        assert read_config(tmp_path / str(i))["path_table"] == [row]


def test_facts_for_users_are_kept(tmp_path):
    @dataclass(frozen=True)
    class Row:
        name: str
        error: float
        macs: int
        p50_ms: float | None = None

    net = small()
    pp.save(
        net,
        tmp_path / "a",
        classes=["a|b", *"cdefghijk"],
        mean=(0.1, 0.2, 0.3),
        std=(1, 1, 1),
        image_size=24,
        resize="squash",
        resize_to=28,
        path_table=[Row("whole", 1.25, 1234567), {"name": "branches=1", "error": 20.0, "macs": 3, "rival": "no|ne"}],
        dataset="owner/images",
        notes=["JPEG-coded"],
    )
    config = read_config(tmp_path / "a")
    assert config["path_table"][0] == {"name": "whole", "error": 1.25, "macs": 1234567, "p50_ms": None}
    assert (config["num_classes"], config["min_size"], config["model"]) == (10, 4, "crescendonet_32")
    loaded = pp.load(tmp_path / "a")
    assert loaded.config.get("normalisation") == {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    assert loaded.config.get("image") == {"size": [24, 24], "resize": "squash", "to": 28}
    assert loaded.config.get("classes", [""])[0] == "a|b"
    assert "path_table" not in loaded.config  # results of these weights, not of what becomes of them
    pp.save(pp.extract(loaded, "branches=1"), tmp_path / "b")
    assert read_config(tmp_path / "b")["classes"] == config["classes"]
    assert "path_table" not in read_config(tmp_path / "b")
    card = (tmp_path / "a/README.md").read_text()
    assert "| whole | 1.25 | 1,234,567 |" in card
    assert "no\\|ne" in card
    assert "- JPEG-coded" in card
    assert "`block1.join=1;block2.join=1;block3.join=1`, extracted" in (tmp_path / "b/README.md").read_text()


def test_the_hub_can_read_the_card(saved):
    from huggingface_hub import ModelCard

    data: Any = ModelCard.load(saved / "README.md").data
    assert (data.library_name, data.license, data.pipeline_tag) == ("polypath", "apache-2.0", "image-classification")
    assert {"polypath", "crescendonet"} <= set(data.tags)
    assert "`branches=2,3,4`" in (saved / "README.md").read_text()


# --- whole or not at all -------------------------------------------------------------------------------------


def test_folders_that_are_there_are_refused(tmp_path, saved):
    net = small(seed=1)
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    with pytest.raises(ValueError, match="exists and is not empty"):
        pp.save(net, saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    pp.save(net, saved, overwrite=True)
    assert set(os.listdir(tmp_path)) == {"net"}
    assert (saved / "model.safetensors").read_bytes() != before["model.safetensors"]
    (tmp_path / "empty").mkdir()
    pp.save(net, tmp_path / "empty")
    assert set(os.listdir(tmp_path / "empty")) == set(FILES)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        pp.save(net, tmp_path / "home", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        pp.save(net, tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("step", ["saving.write_json", "saving.write_file", "files.sync_folder"])
def test_nothing_is_left_when_the_disk_is_full(step, tmp_path, saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    monkeypatch.setattr(f"polypath.storage.{step}", full)
    for target in (tmp_path / "new", saved):
        with pytest.raises(OSError, match="No space left"):
            pp.save(small(seed=1), target, overwrite=True)
    assert set(os.listdir(tmp_path)) == {"net"}
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, saved, monkeypatch):
    before, move = {file.name: file.read_bytes() for file in saved.iterdir()}, os.replace

    def broken(source, target):
        if str(source).endswith(".tmp") and Path(source).is_dir():
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="Input/output"):
        pp.save(small(seed=1), saved, overwrite=True)
    assert set(os.listdir(tmp_path)) == {"net"}
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_full_while_weights_are_written(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        pp.save(small(), tmp_path / "new")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": [str(i) for i in range(11)]}, "11 names, but the network's head has 10 outputs"),
        ({"classes": "cat"}, "must be a list of names"),
        ({"classes": [str(i) for i in range(9)]}, "9 names, but the network's head has 10 outputs"),
        ({"classes": list(range(10))}, "must be a list of names"),
        ({"classes": ["a", *"abcdefghi"]}, "'a' appears twice"),
        ({"classes": [" ", *"abcdefghi"]}, "must be a list of names"),
        (
            {"mean": (0.5,), "std": (1.0,)},
            r"mean = \(0.5,\): must be a list of length 3 .* each entry is a finite number",
        ),
        ({"mean": 0.5, "std": 0.2}, "mean = 0.5: must be a list of length 3"),
        ({"image_size": 8, "resize": "stretch"}, "resize = 'stretch': must be one of crop, squash, pad, or None"),
        ({"mean": (0.5,) * 3}, "must be given together"),
        ({"mean": (0.5,) * 3, "std": (1.0, 0.0, 1.0)}, r"std = \(1.0, 0.0, 1.0\): must be .* above 0"),
        ({"image_size": 0}, "size = 0"),
        ({"resize": "crop"}, "resize = 'crop', resize_to = None: require image_size"),
        ({"image_size": 8, "resize_to": 0}, "resize_to = 0"),
    ],
)
def test_bad_facts(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pp.save(small(), tmp_path / "net", **options)
    assert not os.listdir(tmp_path)


def test_networks_that_could_not_be_loaded_are_not_saved(tmp_path):
    b = NetBuilder()
    with pytest.raises(ValueError, match="only a network built by a family"):
        pp.save(b.net(b.add("head.conv", b.input, nn.Conv2d(3, 1, 1))), tmp_path / "net")
    net = small()
    net.config.get("arguments", {})["widths"] = (4, 6, 10)
    with pytest.raises(ValueError, match="wrong shapes: "):
        pp.save(net, tmp_path / "net")
    with torch.device("meta"):
        empty = pp.create_model("crescendonet_32", widths=(4, 4, 4))
    with pytest.raises(ValueError, match="meta device"):
        pp.save(empty, tmp_path / "net")
    net = small()
    net.get_submodule("head.hidden1").get_submodule("0").bias = net.get_submodule("block1.branch1.unit1.norm").bias
    with pytest.raises(ValueError, match="the same tensor, which cannot be saved under two names"):
        pp.save(net, tmp_path / "net")
    assert not os.listdir(tmp_path)


# --- damaged, foreign, hostile ---------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["POLYPATH_BOMB"]),))


@pytest.mark.parametrize("file", FILES[:2])
def test_pickles_in_disguise_are_not_run(file, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPATH_BOMB", str(tmp_path / "went_off"))
    for dump in (lambda f: torch.save(Bomb(), f), lambda f: f.write_bytes(pickle.dumps(Bomb()))):
        dump(saved / file)
        with pytest.raises(ValueError, match="is damaged or not "):
            pp.load(saved)
    assert not (tmp_path / "went_off").exists()
    with (saved / file).open("wb") as stream:
        pickle.dump(Bomb(), stream)
    pickle.loads((saved / file).read_bytes())
    assert (tmp_path / "went_off").exists()  # the bomb works


def test_pickled_weights_beside_are_not_taken(saved):
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        pp.load(saved)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.99])
def test_truncated_files(share, saved):
    for file in ("model.safetensors", "config.json"):
        whole = (saved / file).read_bytes()
        (saved / file).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=file):
            pp.load(saved)
        (saved / file).write_bytes(whole)
    pp.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "gone"}, "was not written by Polypath"),
        ({"format_version": 2}, "format_version = 2: this Polypath reads versions 1 to 1"),
        ({"format_version": "1"}, "format_version = '1': this Polypath reads versions 1 to 1"),
        ({"family": "perceptron"}, "unknown family 'perceptron'; the families are .*crescendonet"),
        ({"family": 3}, "config.family = 3: expected a text"),
        ({"arguments": []}, r"config.arguments = \[\]: expected a table"),
        ({"arguments": {"branches": 3}}, "no field 'branches'; it has .*widths"),
        ({"arguments": {"widths": "abc"}}, "'crescendonet' cannot be built .*widths = 'abc': expected a list"),
        ({"arguments": {"widths": None}}, "'crescendonet' cannot be built"),
        ({"arguments": {"widths": []}}, "must have a width for at least one block"),
        ({"arguments": {"init": "import os"}}, "'import os': must be one of"),
        ({"paths": "branches=9"}, "branch = '9'"),
        ({"paths": 3}, "config.paths = 3: expected a text"),
        ({"classes": 3}, "config.classes = 3: expected a list"),
        ({"arguments": {"widths": [4, 6, 10], "hidden": [12, 8]}}, r"wrong shapes: .*\(10, "),
        ({"paths": "branches=1"}, "unexpected: block1.branch2.unit1.conv.weight.* and .* more"),
        ({"arguments": {"widths": [4, 6, 8, 8], "hidden": [12, 8]}}, "missing: block4"),
    ],
)
def test_configs_that_are_wrong(changes, message, saved):
    edit(saved, **changes)
    with pytest.raises(ValueError, match=message):
        pp.load(saved)


BOMBS = {
    "crescendonet": ({"interval": 10**9}, {"scale": 10**6}, {"widths": [4] * 100_000}, {"hidden": [8] * 10_000}),
    "fractalnet": ({"columns": 18}, {"columns": 10**9}, {"filters": [4] * 17}),
    "resnet": ({"depth": 10**6 * 2}, {"depth": 0, "blocks": [10**12]}, {"depth": 0, "blocks": [1] * 1000}),
    "plain": ({"depth": 10**9},),
    "fusenet": ({"depth": 2 + 3 * 10**8},),
    "dfn_il": ({"depth": 20, "branches": 10**9},),
    "dfn_mr": ({"depth": 20, "streams": 10**9},),
    "dr_resnet": ({"blocks": [10**9, 3, 3]}, {"loops": [1, 10**9, 3]}),
    "dr_mobilenetv2": ({"blocks": [1, 10**9, 2, 2, 2, 2, 1]},),
    "gunn": ({"stacked": [10**9]}, {"channels": [10**12] * 3, "segments": [10**12] * 3}),
}
LARGE = {
    "crescendonet": {"widths": [10**9]},
    "fractalnet": {"filters": [2**31]},
    "resnet": {"depth": 20, "width": 10**9},
    "gunn": {"channels": [10**12] * 3, "segments": [1] * 3},
    "timm": {"model": "resnet18", "model_arguments": {"block": "no"}},
}


def bombs():
    for family, kinds in BOMBS.items():
        for arguments in kinds:
            yield family, arguments, r"make .*layers in .*the limit is 4,096 layers"
    for family, arguments in LARGE.items():
        yield family, arguments, "cannot be built|weights do not fit the network"
    for image in (
        *({"size": [50_000, 50_000]}, {"size": [True, True]}, {"size": "x"}, {"size": [0, 8]}, {"size": [8]}),
        *({"size": [8, 8], "to": 0}, {"size": [8, 8], "to": 10**9}, {"size": [8, 8], "resize": "bend"}),
    ):
        yield "crescendonet", image, "image"


@pytest.mark.parametrize(("family", "arguments", "message"), list(bombs()))
def test_a_config_asks_for_no_more_than_its_weights_hold(family, arguments, message, saved):
    """A few bytes must cost neither memory nor time."""
    config = read_config(saved)
    pp.load(saved)  # imports what opening needs, whichever test runs first
    if family == "crescendonet" and "size" in arguments:
        edit(saved, image=arguments)
    else:
        edit(saved, family=family, arguments=arguments, paths="gone")
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValueError, match=message):
        pp.Bundle.open(saved)
    traced = 4 if sys.gettrace() else 1  # coverage slows Python down
    assert time.process_time() - begun < traced * (5.0 if family == "timm" else 1.0)  # which imports another package
    assert family == "timm" or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024
    assert config["family"] == "crescendonet"


@pytest.mark.slow
def test_a_model_of_another_package_too(saved):
    """timm's builders take any number: what is made is counted against the weights file."""
    arguments = {"model": "vit_tiny_patch16_224", "model_arguments": {"depth": 10**6}}
    edit(saved, family="timm", arguments=arguments)
    begun = time.process_time()
    with pytest.raises(ValueError, match="the network would be far larger than its weights file"):
        pp.load(saved)
    assert time.process_time() - begun < 20.0


@pytest.mark.parametrize("text", ["[1]", "null", "[" * 100_000, '{"format": "polypath"', b"\xff\xfe\x00", ""])
def test_configs_that_are_no_config(text, saved):
    (saved / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"config\.json"):
        pp.load(saved)


def test_tensors_that_do_not_fit(saved):
    file = saved / "model.safetensors"
    good = load_file(file)
    key = "head.classifier.weight"
    for changed, message in [
        ({k: v for k, v in good.items() if k != key}, f"missing: {key}"),
        (good | {"spare": torch.zeros(1)}, "unexpected: spare"),
        (good | {key: good[key][:3].clone()}, r"head.classifier.weight \(3, 8\), not \(10, 8\)"),
        (good | {key: good[key].long()}, f"wrong types: {key}"),
    ]:
        save_file(changed, file)
        with pytest.raises(ValueError, match=message):
            pp.load(saved)
    save_file({k: v.double() if v.is_floating_point() else v for k, v in good.items()}, file)
    assert pp.load(saved).get_classifier().weight.dtype == torch.float64


# --- the hub -------------------------------------------------------------------------------------------------


def test_names_that_are_no_folder_and_no_hub_name(tmp_path, monkeypatch):
    asked = []
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append(a))
    for name in (tmp_path / "absent", "./net", "a/b/c", "../x", "net"):
        with pytest.raises(ValueError, match="is not a folder"):
            pp.load(name)
    assert not asked
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        pp.load(tmp_path)


def test_from_the_hub(saved, monkeypatch):
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    net = pp.load("owner/net", revision="v1")
    assert asked == {"repo_id": "owner/net", "revision": "v1", "allow_patterns": list(FILES)}
    assert torch.equal(part(net, "head.classifier").weight, part(small(), "head.classifier").weight)

    def offline(*_, **__):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"the download from the Hub failed \(no route to host\)"):
        pp.load("owner/net")


def test_to_the_hub(tmp_path, monkeypatch):
    uploaded = {}

    class Repo(str):
        repo_id = "owner/net"

    class Api:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, repo_id, *, private, exist_ok):
            uploaded.update(asked=repo_id, private=private)
            return Repo("https://hub/owner/net")

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            uploaded.update(repo_id=repo_id, patterns=allow_patterns)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    net = small()
    assert pp.push_to_hub(net, "net", private=True, token="t", notes=["mine"]) == "https://hub/owner/net"
    assert uploaded == {
        "token": "t", "asked": "net", "private": True, "repo_id": "owner/net", "patterns": list(FILES),
    }  # fmt: skip
    loaded = pp.load(tmp_path / "uploaded")
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values(), strict=True))
    assert "- mine" in (tmp_path / "uploaded/README.md").read_text()
