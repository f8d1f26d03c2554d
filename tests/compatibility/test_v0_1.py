"""What Polypath 0.1 wrote, later code must read with the same answers.

``make_fixtures.py`` wrote the files at revision 7e60740. Where a test fails, the code is wrong and not the files.
The tests go through public doors only, so that they outlive moved modules: the names in ``polypath`` and
``polypath.deploy``, and the command. Reading a result folder has no such door, and its import stands in its test.

Sums in float64 agree to 1e-9 on every processor. Training and runtimes compute in float32, so they get more room.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import polypath as pp

FIXTURES = Path(__file__).resolve().parent / "v0_1"
EXACT, TRAINED, RUNTIME = 1e-9, 1e-4, 1e-3


def read(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


NETWORKS: dict[str, dict[str, Any]] = read("networks.json")
RUNS: dict[str, dict[str, Any]] = read("runs.json")
INPUTS = load_file(FIXTURES / "inputs.safetensors")


def recorded(file: str, name: str) -> dict[str, Tensor]:
    """Tensors whose keys begin with ``name|``, by the rest of the key."""
    found = {key.partition("|")[::2]: tensor for key, tensor in load_file(FIXTURES / file).items()}
    return {rest: tensor for (first, rest), tensor in found.items() if first == name}


def same(a: Tensor, b: Tensor, tolerance: float = EXACT) -> bool:
    """Whether two tensors agree, measured by the largest entry."""
    return a.shape == b.shape and float((a.double() - b.double()).abs().max()) <= tolerance * float(b.abs().max())


def agree(found: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether ``found`` has all that ``told`` says, its floats to the tolerance of training."""
    pairs = [(found[key], value) for key, value in told.items()]
    return all(a == pytest.approx(b, rel=TRAINED) if isinstance(b, float) else a == b for a, b in pairs)


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def tupled(value: Any) -> Any:
    """JSON's lists as tuples."""
    if isinstance(value, dict):
        return {key: tupled(entry) for key, entry in value.items()}
    return tuple(map(tupled, value)) if isinstance(value, list) else value


@torch.no_grad()
def logits(net: pp.PathNet, name: str, path: str) -> Tensor:
    return net(INPUTS[NETWORKS[name]["input"]].double(), paths=path)


@pytest.fixture
def polypath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run ``python -m polypath`` in this process, with a cache of its own; return what it prints."""
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))

    def run(*arguments: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["polypath", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("polypath", run_name="__main__")
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return run


# --- networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_answers_as_it_did(name: str) -> None:
    net, told = pp.load(FIXTURES / "networks" / name), NETWORKS[name]
    assert sum(p.numel() for p in net.parameters()) == told["parameters"]
    assert told["paths"].keys() <= net.named_paths().keys()
    height, width = INPUTS[told["input"]].shape[-2:]
    for path, facts in told["paths"].items():
        assert str(net.paths(path)) == facts["text"]
        assert net.paths(facts["text"]) == net.paths(path)
        # of the whole network 0.1 counted the diagram, all operands of its switches
        depths = pp.depth_distribution(net, None if path == "whole" else path)
        assert (sum(depths.values()), [min(depths), max(depths)]) == (facts["paths"], facts["depth"])
    for path, facts in list(told["paths"].items())[:4]:  # enough, at a twentieth of a second each
        cost = pp.cost(net, path, size=(height, width))
        assert (cost.params, cost.macs) == (facts["params"], facts["macs"])
    answers = recorded("networks.safetensors", name)
    assert answers.keys() == told["paths"].keys()
    net.double()
    for path, expected in answers.items():
        assert same(logits(net, name, path), expected), path
    for key, value in told.get("about", {}).items():
        assert plain(net.config[key]) == value


@pytest.mark.parametrize("name", [name for name, told in NETWORKS.items() if len(told["paths"]) > 1])
def test_another_path_answers_otherwise(name: str) -> None:
    """So the test above can fail: no two paths have the same logits."""
    net, answers = pp.load(FIXTURES / "networks" / name).double(), recorded("networks.safetensors", name)
    for a, b in combinations(answers, 2):
        assert not same(answers[a], answers[b], RUNTIME), (a, b)
    first, *_, last = answers
    assert not same(logits(net, name, first), answers[last])


@pytest.mark.parametrize("name", ["crescendonet", "dr_resnet", "gunn"])
def test_a_weight_that_differs_a_little_is_seen(name: str) -> None:
    net, expected = pp.load(FIXTURES / "networks" / name).double(), recorded("networks.safetensors", name)["whole"]
    with torch.no_grad():
        next(net.get_classifier().parameters()).mul_(1 + 1e-6)
    assert not same(logits(net, name, "whole"), expected)


@pytest.mark.parametrize("name", [name for name, told in NETWORKS.items() if told["create"]])
def test_models_by_name_have_the_same_weights(name: str) -> None:
    create = NETWORKS[name]["create"]
    net, saved = pp.create_model(create["name"], **tupled(create["arguments"])), pp.load(FIXTURES / "networks" / name)
    shapes = {key: tensor.shape for key, tensor in net.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in saved.state_dict().items()}
    net.load_state_dict(saved.state_dict())
    assert same(logits(net.double().eval(), name, "whole"), recorded("networks.safetensors", name)["whole"])


@pytest.mark.parametrize("name", [name for name, told in NETWORKS.items() if "path" in told])
def test_an_extracted_network_still_fits_its_parent(name: str) -> None:
    """Its parent's path is the same network but for the norms that were estimated anew."""
    told = NETWORKS[name]
    child, parent = pp.load(FIXTURES / "networks" / name), pp.load(FIXTURES / "networks" / told["parent"])
    again = pp.extract(parent, told["path"])
    assert again.config.get("paths") == child.config.get("paths")
    assert again.state_dict().keys() == child.state_dict().keys()
    anew = "statistics" in child.config and "statistics" not in parent.config
    moved = [key for key, tensor in again.state_dict().items() if not torch.equal(tensor, child.state_dict()[key])]
    assert all(key.rpartition(".")[2] in ("running_mean", "running_var") for key in moved)
    assert bool(moved) == anew


def test_names_of_models_and_recipes_are_still_known(polypath) -> None:
    names = read("names.json")
    assert set(names["models"]) <= set(pp.list_models())
    assert set(names["recipes"]) <= {recipe["name"] for recipe in json.loads(polypath("recipes", "--json"))}


@pytest.mark.parametrize("weights", ["shared", "separate"])
@torch.no_grad()
def test_a_saved_ensemble_answers_as_it_did(weights: str) -> None:
    ensemble = pp.Ensemble.load(FIXTURES / "ensembles" / f"{weights}.safetensors")
    told, answers = read("ensembles.json")[weights], recorded("ensembles.safetensors", weights)
    x = INPUTS[told["input"]]
    assert list(ensemble.names) == told["members"]
    assert sum(p.numel() for p in ensemble.parameters()) == told["parameters"]
    assert same(ensemble(x), answers.pop(""), 1e-5)  # it averages in float32
    ensemble.double()
    for name, expected in answers.items():
        assert same(ensemble.logits(name, x.double()), expected), name
        assert same(ensemble.member(name).eval()(x.double()), expected), name
    first, last = answers
    assert not same(ensemble.logits(first, x.double()), answers[last], RUNTIME)


# --- runs ----------------------------------------------------------------------------------------------------


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "trained" / name, folder / "a copy"))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_came_to(run: Path, result: dict[str, Any], expected: dict[str, Any]) -> None:
    rows = lines(run)
    assert len(rows) == len(expected["metrics"])
    for row, told in zip(rows, expected["metrics"], strict=True):
        assert agree(row, told), (row, told)
    for found in (result, json.loads((run / "summary.json").read_text(encoding="utf-8"))):
        assert agree(found, expected["summary"]), (found, expected["summary"])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_to_the_same_end(name: str, tmp_path: Path, polypath) -> None:
    """``begun`` has only its recipe, ``stopped`` a checkpoint within its last epoch; ``finished`` is only read."""
    run = copied(name, tmp_path)
    before = lines(run) if (run / "metrics.jsonl").exists() else []
    result = json.loads(polypath("resume", run, "--json"))
    assert_came_to(run, result, RUNS[name])
    assert lines(run)[: len(before)] == before
    net = pp.load(run / "model")
    assert sum(p.numel() for p in net.parameters()) == RUNS[name]["summary"]["parameters"]


def test_a_run_that_lacks_its_end_gets_it_from_its_checkpoints(tmp_path: Path, polypath) -> None:
    run = copied("finished", tmp_path)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "model")
    assert_came_to(run, json.loads(polypath("resume", run, "--json")), RUNS["finished"])
    saved, again = pp.load(FIXTURES / "trained" / "finished" / "model"), pp.load(run / "model")
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in saved.state_dict().items())
    for key in ("classes", "normalisation", "image"):
        assert plain(again.config.get(key)) == plain(saved.config.get(key))


def test_another_seed_comes_to_another_end(tmp_path: Path, polypath) -> None:
    """So the tests above can fail."""
    run, expected = copied("begun", tmp_path), RUNS["begun"]["summary"]["test_loss"]
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    (run / "recipe.json").write_text(json.dumps(recipe | {"seed": 1}), encoding="utf-8")
    assert json.loads(polypath("resume", run, "--json"))["test_loss"] != pytest.approx(expected, rel=10 * TRAINED)


def test_the_paths_of_a_run_score_as_they_did(tmp_path: Path, polypath) -> None:
    expected = {row["name"]: row for row in RUNS["finished"]["paths"]}
    also = [name for name in expected if ".join" in name]
    options = ["--recalibrate", "--num-images", 200, "--repeats", 1, *(f"--also={name}" for name in also), "--json"]
    table = json.loads(polypath("paths", copied("finished", tmp_path), *options))
    rows = {row["name"]: row for row in table["rows"]}
    assert expected.keys() <= rows.keys()
    for name, told in expected.items():
        assert agree(rows[name], told), (rows[name], told)
    assert len({row["error"] for row in expected.values()}) > 1


# --- a bundle ------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle():
    return pp.deploy.Bundle.open(FIXTURES / "bundle")


PIXELS = INPUTS["digits"].permute(0, 2, 3, 1).contiguous().numpy()


def test_a_bundle_says_what_it_said(bundle) -> None:
    told = read("bundle.json")
    assert (bundle.name, plain(bundle.classes), plain(bundle.size)) == (told["name"], told["classes"], told["size"])
    assert plain(bundle.normalisation) == told["normalisation"]
    assert sorted(bundle.formats) == told["formats"]
    assert [path.name for path in bundle.paths] == [path["name"] for path in told["paths"]]
    for found, expected in ((bundle.paths, told["paths"]), (bundle.ladder, told["ladder"])):
        for one, facts in zip(found, expected, strict=True):
            assert plain({key: getattr(one, key) for key in facts}) == facts
    assert plain([dict(row) for row in bundle.manifest.latency]) == told["latency"]


@torch.no_grad()
def test_paths_of_a_bundle_have_their_own_norms(bundle) -> None:
    x = load_file(FIXTURES / "bundle.safetensors")["prepared"].double()
    whole = recorded("bundle.safetensors", "logits")["whole"]
    for path, expected in recorded("bundle.safetensors", "logits").items():
        child = bundle.extracted(path).double()
        assert same(child(x), expected), path
        if path != "whole":
            assert not same(child(x), whole, RUNTIME)
    assert not same(bundle.net.double()(x), whole, RUNTIME)  # without the norms that were estimated anew


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_a_bundle_answers_as_it_did(runtime: str, bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(runtime)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path))
    predictor, told = pp.AnytimePredictor(bundle, runtime, 1), read("bundle.json")["confident"]
    answers = recorded("bundle.safetensors", "probabilities")
    for path, expected in answers.items():
        answer = predictor.predict(PIXELS, path=path)
        assert answer.path == path
        assert same(torch.from_numpy(answer.probabilities), expected, RUNTIME), path
    for a, b in combinations(answers.values(), 2):
        assert not same(a, b, 10 * RUNTIME)
    if runtime == "torch":
        sure = predictor.predict_confident(PIXELS, risk=told["risk"])
        assert (list(sure.paths), sure.sure.tolist()) == (told["paths"], told["sure"])


def test_the_command_predicts_as_it_did(polypath) -> None:
    answers, classes = recorded("bundle.safetensors", "probabilities"), read("bundle.json")["classes"]
    for path in ("column=1", "whole"):
        options = ["--path", path, "--runtime", "torch", "--threads", 1, "--top-k", 10, "--json"]
        out = polypath("predict", FIXTURES / "bundle", FIXTURES / "images", *options)
        rows = [json.loads(line) for line in out.splitlines()]
        assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png"]
        for row, expected in zip(rows, answers[path], strict=False):
            found = {entry["class"]: entry["probability"] for entry in row["top"]}
            assert torch.tensor([found[name] for name in classes]) == pytest.approx(expected, abs=RUNTIME)


# --- a result ------------------------------------------------------------------------------------------------


def test_a_result_folder_says_what_it_said() -> None:
    from polypath.reproduce.store import load_result

    result, told = load_result(FIXTURES / "result"), read("result_expected.json")
    for key in ("experiment", "scale", "seeds", "errors", "values", "counts", "published"):
        assert plain(getattr(result, key)) == told[key], key
    assert [verdict.text for verdict in result.verdicts] == [verdict["text"] for verdict in told["verdicts"]]
    for verdict, facts in zip(result.verdicts, told["verdicts"], strict=True):
        assert plain({key: getattr(verdict, key) for key in facts}) == facts
    assert {verdict.word for verdict in result.verdicts} == {"holds", "does not hold", "undecided", "not measured"}
    assert {key: hits.sum(1).tolist() for key, hits in result.correct.items()} == told["right"]
    for key, right in told["right"].items():
        wrong = [100.0 * (1.0 - n / result.images[key]) for n in right]
        assert wrong == pytest.approx(told["errors"][key], abs=1e-4)
