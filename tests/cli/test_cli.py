"""The command: what it prints and writes, and its errors for every mistake."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import polypath as pp
from conftest import child_environment
from polypath import cli
from polypath.analysis.finished_run import FinishedRun
from polypath.deploy.from_runs import network_of
from polypath.families.crescendonet import CrescendoNet
from polypath.storage.batchnorm import load_statistics
from polypath.storage.looks import looks
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import recipe_from_json
from polypath.training.recipes import get_recipe

IMAGES = [
    *("--epochs", "1", "--device", "cpu", "--data.no-cache", "--data.train-images", "192"),
    *("--data.test-images", "80", "--data.validation", "40", "--batch-size", "32"),
]
TINY = ["--model.widths", "4", "4", "--model.hidden", "8", *IMAGES]


def run(capsys, *argv: str | Path) -> tuple[int, str, str]:
    """Status, standard output and standard error of ``polypath ARGV``."""
    status = cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, *argv: str | Path) -> str:
    """The one line that a refused command prints; the same with ``--json``."""
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("polypath: error: ")
    json_status, _, json_err = run(capsys, *argv, "--json")
    assert json_status == 2
    assert json.loads(json_err)["error"] == err.strip().removeprefix("polypath: error: ")
    return err


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of two finished runs, ``mine`` and ``rival``; tests copy a run before they change it."""
    folder = tmp_path_factory.mktemp("runs")
    assert cli.main(["train", "crescendonet-digits", *TINY, "--out", str(folder / "mine"), "--json"]) == 0
    assert cli.main(["train", "plain-digits", *IMAGES, "--out", str(folder / "rival"), "--json"]) == 0
    return folder


@pytest.fixture
def mine(runs, tmp_path) -> Path:
    return shutil.copytree(runs / "mine", tmp_path / "mine")


# --- help and mistakes ---------------------------------------------------------------------------------------


def test_help_names_every_subcommand(capsys):
    for argv in ([], ["--help"], ["-h"]):
        status, out, _ = run(capsys, *argv)
        assert status == 0
        assert all(f"  {name} " in out for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        status, out, _ = run(capsys, name, "--help")
        assert status == 0
        assert f"usage: polypath {name}" in out
    status, out, _ = run(capsys, "--version")
    assert (status, out.split()[0]) == (0, "polypath")


def test_train_help_lists_the_recipes_fields(capsys):
    status, out, _ = run(capsys, "train", "crescendonet-digits", "--help")
    assert status == 0
    for option in ("--out", "--optim.lr", "--data.source", "--model.widths", "--objective.rate"):
        assert option in out


MISTAKES = {
    "unknown subcommand": (["trian"], "did you mean train?"),
    "unknown model": (["models", "crescendonet32"], "crescendonet_32"),
    "no model fits": (["models", "zz*"], "no network's name matches 'zz*'"),
    "unknown recipe": (["train", "crescendonet-digit"], "crescendonet-digits"),
    "unknown recipe shown": (["recipes", "crescendonet-digit"], "crescendonet-digits"),
    "no recipe fits": (["recipes", "zz*"], "no recipe's name matches"),
    "no recipe": (["train", "--optim.lr", "1"], "give a recipe before '--optim.lr'"),
    "unknown field": (["train", "crescendonet-digits", "--optim.rl", "1"], "did you mean --optim.lr"),
    "value of another type": (["train", "crescendonet-digits", "--optim.lr", "fast"], "--optim.lr"),
    "illegal choice": (["train", "crescendonet-digits", "--data.resize", "bend"], "'crop', 'squash', 'pad'"),
    "refused value": (["train", "crescendonet-digits", "--optim.momentum", "1.5"], "momentum = 1.5"),
    "no images": (
        ["train", "crescendonet-digits", "--data.source", "no/such/folder"],
        "'no/such/folder': does not exist; give a folder",
    ),
    "text as a number": (["train", "crescendonet-digits", "--epochs", "x"], "--epochs x: must be a whole number"),
    "text as a rate": (
        ["train", "crescendonet-digits", "--seed", "0", "--epochs", "1", "--optim.lr=x"],
        "--optim.lr x: must be a number",
    ),
    "numbers with commas": (
        ["train", "crescendonet-digits", "--model.widths", "2,2", "--epochs", "1"],
        "--model.widths 2,2: must be whole numbers separated by spaces",
    ),
    "text as a number or None": (
        ["train", "crescendonet-digits", "--data.train-images", "x"],
        "--data.train-images x: must be None or a whole number",
    ),
    "unknown split": (["train", "crescendonet-digits", "--data.train-split", "tarin"], "tarin"),
    "few outputs": (["train", "crescendonet-digits", "--model.num-classes", "4"], "digits has 10 classes"),
    "small images": (["train", "crescendonet-digits", "--data.size", "2"], "at least"),
    "no device": (["train", "crescendonet-digits", "--device", "cuda:99"], "this machine does not have the device"),
    "unknown option": (["paths", "x", "--rivl", "y"], "did you mean --rival"),
    "no such run": (["paths", "x"], "x: no such run folder"),
    "no run to resume": (["resume", "x"], "x: no such run folder"),
    "missing argument": (["extract", "x"], "--paths, --out"),
    "no protocol": (["bench", "often", "--method", "x.py"], "bench = 'often': must be one of anytime"),
    "no method": (["bench", "anytime"], "--method"),
    "no method's file": (["bench", "anytime", "--method", "x.py"], "x.py: there is no such file"),
    "no number": (["paths", "x", "--num-images", "0"], "'0' is not a whole number of at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_status_2(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    argv, said = MISTAKES[mistake]
    assert said in refused(capsys, *argv)
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_bugs_are_distinguished_from_mistakes(capsys, monkeypatch):
    def broken(argv):
        raise KeyError("lost")

    monkeypatch.setattr("polypath.cli.models.models", broken)
    status, _, err = run(capsys, "models")
    assert status == 1
    assert "a bug in Polypath" in err
    assert "Traceback" not in err
    monkeypatch.setenv("POLYPATH_DEBUG", "1")
    assert "Traceback" in run(capsys, "models")[2]


# --- models and recipes --------------------------------------------------------------------------------------


def test_models(capsys):
    status, out, _ = run(capsys, "models", "crescendonet_*")
    assert status == 0
    assert "4,128,202" in out
    assert "fractalnet" not in out
    rows = {row["name"]: row for row in json.loads(run(capsys, "models", "fractalnet_ultra_*", "--json")[1])}
    deepest = rows["fractalnet_ultra_160"]
    assert (deepest["params"], deepest["depth"]) == (21_095_076, 160)
    assert deepest["paths"] == pp.create_model("fractalnet_ultra_160").wiring.count_paths()


def test_models_macs_are_those_of_cost(capsys):
    rows = json.loads(run(capsys, "models", "crescendonet_32", "--json")[1])
    net = pp.create_model("crescendonet_32")
    assert rows[0]["macs"] == pp.cost(net).macs
    assert rows[0]["params"] == pp.cost(net).params
    assert rows[0]["named_paths"] == list(net.named_paths())


def test_recipes(capsys):
    status, out, _ = run(capsys, "recipes")
    assert status == 0
    assert "crescendonet-digits" in out
    status, out, _ = run(capsys, "recipes", "crescendonet_128-cifar10")
    assert "the rate is not stated: 0.3, as in the paper's example" in out
    shown = json.loads(run(capsys, "recipes", "crescendonet_128-cifar10", "--json")[1])
    shown.pop("about")
    assert recipe_from_json(shown) == get_recipe("crescendonet_128-cifar10")


def test_a_field_that_is_set_is_no_longer_assumed():
    from polypath.cli.train import customised

    base = get_recipe("crescendonet_128-cifar10")
    changed = customised(
        base, ["--objective.rate", "0.2", "--epochs", "3", "--schedule.at-epochs", "2"], "polypath train"
    )
    assert isinstance(changed.objective, DropPath)
    assert changed.objective.rate == 0.2
    assert set(base.assumed) - set(changed.assumed) == {"objective.rate"}
    assert customised(base, [], "polypath train") == base


# --- train and resume ----------------------------------------------------------------------------------------


def test_train_writes_a_run_by_the_recipe_and_its_options(runs):
    recipe = recipe_from_json(json.loads((runs / "mine" / "recipe.json").read_text()))
    assert isinstance(recipe.model, CrescendoNet)
    assert recipe.model.widths == (4, 4)
    assert (recipe.epochs, recipe.batch_size, recipe.data.train_images) == (1, 32, 192)
    assert recipe.optim == get_recipe("crescendonet-digits").optim
    assert pp.load(runs / "mine" / "model").config.get("classes") == tuple("0123456789")


def test_an_existing_run_is_left_alone(capsys, mine):
    before = {f: f.read_bytes() for f in mine.rglob("*") if f.is_file()}
    assert "is already a run" in refused(capsys, "train", "crescendonet-digits", *TINY, "--out", mine)
    assert before == {f: f.read_bytes() for f in mine.rglob("*") if f.is_file()}


def test_name_chooses_the_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "train", "crescendonet-digits", *TINY, "--name", "other")
    assert status == 0
    assert "test error" in out
    assert "polypath paths runs/other" in out
    assert (tmp_path / "runs" / "other" / "summary.json").is_file()


def test_resume_of_a_finished_run_gives_its_result(capsys, mine):
    status, out, _ = run(capsys, "resume", mine, "--json")
    assert status == 0
    assert json.loads(out) == {**json.loads((mine / "summary.json").read_text()), "run_dir": str(mine)}


def test_a_loss_that_is_not_finite(capsys, tmp_path):
    status, _, err = run(
        capsys, "train", "crescendonet-digits", *TINY, "--optim.lr", "1e30", "--out", tmp_path / "boom"
    )
    assert status == 2
    assert "the loss is not finite" in err.splitlines()[-1]


def test_no_space_left(capsys, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("polypath.training.checkpoint.save_file", full)
    status, _, err = run(capsys, "train", "crescendonet-digits", *TINY, "--out", tmp_path / "full")
    assert status == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert "polypath resume" in err.splitlines()[-1]


# --- paths and extract ---------------------------------------------------------------------------------------


def test_paths_scores_every_named_path(capsys, mine):
    status, out, _ = run(capsys, "paths", mine, "--repeats", "2")
    assert status == 0
    net = pp.load(mine / "model")
    table = json.loads((mine / "paths.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == list(net.named_paths())
    assert table["recalibrated"] is None
    assert all(row["error_recalibrated"] is None for row in rows.values())
    assert "batch-norm not recalibrated" in out
    assert "recalibrated %" not in out
    for name, p in net.named_paths().items():
        assert name in out
        assert (rows[name]["params"], rows[name]["macs"]) == (pp.cost(net, p, 8).params, pp.cost(net, p, 8).macs)
        assert 0 < rows[name]["p50_ms"] <= rows[name]["p95_ms"]
    assert rows["whole"]["error"] == pytest.approx(
        json.loads((mine / "summary.json").read_text())["test_error"], abs=1e-3
    )
    assert table["measured"]["torch"] == torch.__version__
    assert {f"paths.{end}" for end in ("csv", "json", "png", "svg")} <= {f.name for f in mine.iterdir()}
    with open(mine / "paths.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["name"] for line in lines] == list(rows)
    assert [float(line["error"]) for line in lines] == [row["error"] for row in rows.values()]
    assert looks(mine) == {"paths": len(rows)}
    assert table["test_evaluations"] == 1 + len(rows)
    said = f"80 test images of digits, {1 + len(rows)} evaluations on them so far"
    assert said in out
    assert said in (mine / "model" / "README.md").read_text()


@pytest.mark.slow
def test_paths_recalibrated_beside_a_rival(capsys, mine, runs):
    argv = [
        "--recalibrate",
        "--num-images",
        "100",
        "--rival",
        runs / "rival",
        "--also",
        "branches=1,2/4",
        "--repeats",
        "2",
    ]
    weights = pp.load(mine / "model").state_dict()
    rival = looks(runs / "rival").get("paths", 0)
    status, out, _ = run(capsys, "paths", mine, *argv, "--json")
    assert status == 0
    table = json.loads(out)
    assert table["recalibrated"] == {"images": 100, "seed": 0}
    rows = {row["name"]: row for row in table["rows"]}
    assert "branches=1,2/4" in rows
    assert looks(mine) == {"paths": 2 * len(rows)}  # with two sets of statistics
    assert looks(runs / "rival")["paths"] == rival + 2
    assert [row["name"] for row in table["rivals"]["rival"]] == ["whole"]
    assert table["rivals"]["rival"][0]["params"] == pp.cost(pp.load(runs / "rival" / "model"), size=8).params
    assert any(row["error_recalibrated"] != row["error"] for row in rows.values())
    stats, net = load_statistics(mine / "statistics.safetensors"), pp.load(mine / "model")
    assert set(stats) == {net.paths(name) for name in rows}
    assert all(torch.equal(t, weights[name]) for name, t in net.state_dict().items())
    card = (mine / "model" / "README.md").read_text()
    assert "branches=2,4" in card
    assert "batch-norm recalibrated on 100 training images" in card
    status, out, _ = run(capsys, "paths", mine, *argv)
    assert "recalibrated %" in out
    assert "\n rival" in out


def test_a_rival_on_other_images_is_refused(capsys, mine, runs, tmp_path):
    other = [*TINY, "--data.test-images", "70"]
    assert run(capsys, "train", "crescendonet-digits", *other, "--out", tmp_path / "other", "--json")[0] == 0
    assert "has other test images" in refused(capsys, "paths", mine, "--rival", tmp_path / "other")
    assert "all networks must have different names" in refused(capsys, "paths", mine, "--rival", runs / "mine")
    assert not (mine / "paths.json").exists()


def test_extract_saves_a_standalone_network(capsys, mine, tmp_path):
    status, out, _ = run(capsys, "extract", mine, "--paths", "branches=1,3", "--out", tmp_path / "child", "--json")
    assert status == 0
    facts = json.loads(out)
    parent, child = pp.load(mine / "model"), pp.load(tmp_path / "child")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(child(x), parent(x, paths="branches=1,3"))
        assert not torch.equal(child(x), parent(x))
    assert facts["params"] == sum(p.numel() for p in child.parameters()) < facts["parent"]["params"]
    assert facts["recalibrated"] is None

    argv = [
        "extract",
        mine,
        "--paths",
        "branches=1,3",
        "--out",
        tmp_path / "better",
        "--recalibrate",
        "--num-images",
        "100",
    ]
    assert run(capsys, *argv)[0] == 0
    better = pp.load(tmp_path / "better")
    assert better.config.get("statistics") == {"images": 100, "seed": 0}
    with torch.no_grad():
        assert not torch.equal(child(x), better(x))

    status, _, _ = run(
        capsys, "extract", tmp_path / "child", "--paths", "block1.join=1", "--out", tmp_path / "grandchild"
    )
    assert status == 0
    with torch.no_grad():
        assert torch.equal(pp.load(tmp_path / "grandchild")(x), parent(x, paths="branches=1/1,3"))


def test_extract_refuses(capsys, mine, tmp_path):
    out = ["--out", tmp_path / "child"]
    assert "must be one of 1, 2, 3, 4" in refused(capsys, "extract", mine, "--paths", "branches=9", *out)
    assert "is not a run" in refused(capsys, "extract", mine / "model", "--paths", "branches=1", "--recalibrate", *out)
    assert not (tmp_path / "child").exists()
    assert "not empty" in refused(capsys, "extract", mine, "--paths", "branches=1", "--out", mine)


def test_extract_corrects_gates_on_held_out_images(capsys, mine, tmp_path):
    gated = ["--model.width", "4", "--model.blocks", "1", "2", "2", "--model.loops", "1", "2", "2"]
    assert run(capsys, "train", "drnn-digits", *gated, *IMAGES, "--out", tmp_path / "run")[0] == 0
    argv = ["extract", tmp_path / "run", "--paths", "whole", "--gate-rate", "0.6"]
    status, out, _ = run(capsys, *argv, "--out", tmp_path / "child", "--json")
    assert status == 0
    told = json.loads(out)["gates"]
    assert (told["target"], told["images"]) == (0.6, 40)
    assert set(told["rates"]) == {"group2.block2.loops", "group3.block2.loops"}
    child = pp.load(tmp_path / "child")
    assert child.config.get("gates") == told
    corrected, trained = child.state_dict(), pp.load(tmp_path / "run/model").state_dict()
    assert {name for name in trained if not torch.equal(trained[name], corrected[name])} == {
        "group2.block2.gate.last.bias",
        "group3.block2.gate.last.bias",
    }
    status, out, _ = run(capsys, *argv, "--out", tmp_path / "again")
    assert "of the held-out images (40) that reach them" in out
    assert "target 0.6 ± 0.01" in out

    again = ["extract", tmp_path / "run/model", "--paths", "whole", "--gate-rate", "0.6", "--out", tmp_path / "x"]
    assert "corrected on held-out images, but this is not a run" in refused(capsys, *again)
    none = ["extract", mine, "--paths", "branches=1", "--gate-rate", "0.6", "--out", tmp_path / "x"]
    assert "no gates" in refused(capsys, *none)
    assert "'1.5' is not" in refused(capsys, *none[:5], "1.5", *none[6:])
    assert not (tmp_path / "x").exists()


def test_damaged_weights_are_refused(capsys, mine):
    file = mine / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    assert "model.safetensors" in refused(capsys, "paths", mine)


# --- as a process --------------------------------------------------------------------------------------------


def start(*argv: str | Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "polypath", *(str(a) for a in argv)]
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=child_environment(), **options)


@pytest.mark.slow
def test_a_run_stopped_by_ctrl_c_can_be_resumed(capsys, tmp_path):
    out = tmp_path / "run"
    process = start("train", "crescendonet-digits", *TINY, "--epochs", "12", "--out", out)
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count(f"polypath resume {out}") == 1
    assert "Traceback" not in err
    reached = epochs(out)
    assert 1 <= len(reached) < 12
    assert "not finished" in refused(capsys, "paths", out)
    assert run(capsys, "resume", out, "--json")[0] == 0
    assert epochs(out) == list(range(1, 13))


def epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_reader_that_exits_is_no_error():
    process = start("recipes", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(60)


def test_a_process_exits_with_the_status():
    process = start("trian")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "polypath: error: unknown subcommand 'trian'; did you mean train?\n")


def test_few_held_out_images_score_nothing_and_leave_no_path_out(runs, monkeypatch, caplog):
    monkeypatch.setattr("polypath.deploy.heldout.FEWEST", 10_000)
    with caplog.at_level("WARNING", "polypath"):
        network = network_of(FinishedRun(runs / "mine"))
    assert network.held_out is None
    told = (
        "has 40 held-out images (data.validation), but 10000 are needed: all paths stay, without errors and calibration"
    )
    assert told in caplog.text


@pytest.mark.slow
def test_paths_and_export_say_which_statistics_an_error_was_taken_with(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("polypath.deploy.heldout.FEWEST", 40)
    for i, (options, told) in enumerate(
        [
            (["--num-images", "100"], "batch-norm recalibrated on 100 training images"),
            (["--no-recalibrate"], "batch-norm not recalibrated"),
        ]
    ):
        for form in ("torch", "bundle"):
            if form == "bundle":
                pytest.importorskip("onnxscript")
                pytest.importorskip("onnxruntime")
            out = tmp_path / f"{form}{i}"
            argv = ["export", runs / "mine", "--paths", "whole", "--format", form, "--out", out, *options]
            status, printed, err = run(capsys, *argv)
            assert status == 0, err
            assert told in printed
            if form == "bundle":
                assert looks(runs / "mine")["export"] == i + 1  # its one path
                assert "Errors measured on its test split before the export: " in (out / "README.md").read_text()
