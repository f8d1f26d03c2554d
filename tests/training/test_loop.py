"""Complete training runs: their files, that they learn, determinism, refusals, warnings."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import equal, images, left, tiny
from torch import Tensor

import polypath
from polypath.cli import main
from polypath.data.split import Split
from polypath.families.fusenet import PlainNet
from polypath.storage.shipped import SHIPPED
from polypath.training import build, loop
from polypath.training.build import build_net, resolve_device, resolve_precision
from polypath.training.engine import Engine
from polypath.training.loop import train
from polypath.training.objectives import Whole
from polypath.training.path_objectives import DropPath, OnePath, PathWise, Taught
from polypath.training.recipe import Recipe, recipe_from_json, replace
from polypath.training.recipes import get_recipe
from polypath.training.result import result_of
from polypath.training.schedules import ScheduleConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "a"
    train(tiny(trace_test=True), path, data=images(), quiet=True)
    return path


def trained(recipe: Recipe, path: Path) -> tuple[dict[str, Tensor], bytes]:
    train(recipe, path, data=images(), quiet=True)
    checkpoint, rows = left(path)
    return checkpoint.tensors, rows


# --- what it leaves ----------------------------------------------------------------------------------------


def test_the_folder_of_a_run(run: Path) -> None:
    assert recipe_from_json(json.loads((run / "recipe.json").read_text())) == tiny(trace_test=True)
    (session,) = json.loads((run / "environment.json").read_text())["sessions"]
    assert {"revision", "python", "torch", "device", "threads", "seed", "platform", "processes"} <= session.keys()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [5, 10, 15]
    wanted = {"lr", "train_loss", "train_error", "val_loss", "val_error", "traced_test_error"}
    assert all(wanted <= row.keys() for row in rows)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert len((run / "times.jsonl").read_text().splitlines()) == 3
    assert Image.open(run / "curves.png").size[0] > 400
    assert list(run.glob("events.*"))
    assert not list(run.rglob("*.tmp"))


def test_the_best_epoch_is_chosen_by_held_out_images_and_saved(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: (row["val_error"], row["val_loss"]))
    result = result_of(run)
    assert (result.reported, result.epoch, result.val_error) == ("best", best["epoch"], best["val_error"])
    assert result.test_error == best["traced_test_error"]
    net = polypath.load(run / "model")
    test = images().test
    assert isinstance(test, Split)
    x = test.images.float() / 255
    mean, std = torch.tensor(images().mean), torch.tensor(images().std)
    with torch.no_grad():
        wrong = (net((x - mean) / std).argmax(1) != test.labels).float().mean()
    assert 100 * float(wrong) == pytest.approx(result.test_error, abs=0.3)
    assert net.config.get("classes") == tuple("0123456789")


def test_without_held_out_images_the_last_epoch_is_reported(tmp_path: Path) -> None:
    result = train(tiny(data__validation=0, epochs=2), tmp_path / "a", quiet=True)
    assert (result.reported, result.epoch, result.val_error) == ("last", 2, None)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert not any("val_error" in row or "traced_test_error" in row for row in rows)


def test_it_learns(tmp_path: Path) -> None:
    changes = {"model__widths": (8, 8), "model__dropout": 0.0, "data__train_images": 640, "epochs": 10}
    result = train(tiny(**changes, optim__lr=0.05, objective=Whole()), tmp_path / "a", quiet=True)
    assert result.test_error < 25.0  # chance is 90


# --- determinism -------------------------------------------------------------------------------------------


def test_same_seed_same_bits_other_seed_other_bits(tmp_path: Path) -> None:
    a, rows = trained(tiny(), tmp_path / "a")
    torch.rand(7)  # the global generators are not asked
    b, others = trained(tiny(), tmp_path / "b")
    c, _ = trained(tiny(seed=1), tmp_path / "c")
    assert equal(a, b)
    assert rows == others
    assert not any(torch.equal(a[k], c[k]) for k in a if k.endswith("conv.weight"))


def test_the_callers_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(tiny(epochs=1), tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"channels_last": True, "model__dropout": 0.0},
        {"accumulate": 2},
        {"ema": 0.9},
        {"swa": 0.9, "recalibrate": 100},
        {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1},
        {"clip_norm": 0.01},
        {"optim__kind": "adamw"},
        {"optim__nesterov": True},
        {"optim__move_unused": True},
        {"objective": PathWise()},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_every_switch_trains_and_matters(tmp_path: Path, changes: dict[str, Any]) -> None:
    same = {name: value for name, value in changes.items() if name == "model__dropout"}
    plain, _ = trained(tiny(epochs=1, **same), tmp_path / "plain")
    other, _ = trained(tiny(epochs=1, **changes), tmp_path / "other")
    assert all(t.isfinite().all() for t in other.values())
    weights = [name for name in plain if name.startswith("model/") and name.endswith("weight")]
    differs = [name for name in weights if not torch.equal(plain[name], other[name])]
    if "channels_last" in changes:  # the same sums in another order
        assert all(torch.allclose(plain[name], other[name], atol=1e-4) for name in weights)
    elif changes.keys() & {"ema", "swa"}:  # what it averages trains as before
        assert not differs
        assert any(not torch.equal(other[f"ema/{n[6:]}"], other[n]) for n in weights)
    else:
        assert differs


@pytest.mark.parametrize(("has", "taken"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_settled_when_a_run_starts_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool, taken: str
) -> None:
    monkeypatch.setattr(build, "_processor_has_bf16", lambda: has)
    recipe = tiny(epochs=2, precision="auto", data__validation=0)
    named, rows = trained(replace(recipe, {"precision": taken}), tmp_path / "named")
    with monkeypatch.context() as inner:
        inner.setattr(loop._Session, "_finish", lambda _: sys.exit(143))  # stopped before the end
        with pytest.raises(SystemExit):
            train(recipe, tmp_path / "auto", data=images(), quiet=True)
    assert json.loads((tmp_path / "auto" / "recipe.json").read_text())["precision"] == taken
    monkeypatch.setattr(build, "_processor_has_bf16", lambda: not has)  # and goes on on another kind of machine
    assert loop.resume(tmp_path / "auto", data=images(), quiet=True).precision == taken
    checkpoint, others = left(tmp_path / "auto")
    assert equal(checkpoint.tensors, named)
    assert others == rows
    sessions = json.loads((tmp_path / "auto" / "environment.json").read_text())["sessions"]
    assert [session["precision"] for session in sessions] == [taken, taken]


def test_where_auto_precision_takes_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    cpu = torch.device("cpu")
    assert [resolve_precision(name, cpu) for name in ("auto", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_precision("auto", cpu) == "bf16"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(ValueError, match="resolve it first"):
        Engine(tiny(precision="auto"), tiny().model.build(0), cpu, loop.World(), 5)


# --- unused weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("move", [False, True])
def test_weights_that_no_path_used_are_moved_only_where_the_recipe_says_so(kind: str, move: bool) -> None:
    recipe = tiny(optim__kind=kind, optim__weight_decay=0.1, optim__move_unused=move)
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), loop.World(), 5)
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
    engine.bound = Whole().bind(engine.net)
    engine.step([(0, x, y)], 8, 0, 0)  # everything has momentum now
    engine.bound = OnePath(paths="branches=1").bind(engine.net)
    before = {name: t.clone() for name, t in engine.tensors().items()}
    engine.step([(0, x, y)], 8, 0, 1)
    after = engine.tensors()
    unused = [k for k in before if "branch2" in k or "branch3" in k]
    used = [k for k in before if "branch1" in k and k.endswith("conv.weight")]
    assert len(unused) > 20
    assert len(used) == 2
    assert not any(torch.equal(before[k], after[k]) for k in used)
    still = [torch.equal(before[k], after[k]) for k in unused if "conv.weight" in k]
    assert not any(still) if move else all(still)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__num_classes": 7}, r"model.num_classes = 7: .*10 classes.*--model.num-classes 10"),
        ({"model__in_chans": 3}, r"model.in_chans = 3: .*1 channel.*--model.in-chans 1"),
        ({"batch_size": 1000}, r"batch_size = 1000: there are only 160"),
        ({"objective": DropPath(mode="global")}, "has none; use local"),
        ({"device": "cuda:77"}, "device = 'cuda:77': this machine does not have the device; available: auto, cpu"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny(**changes), tmp_path / "a", data=images(), quiet=True)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_exists_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is already a run.*polypath resume"):
        train(tiny(), run, data=images(), quiet=True)
    with pytest.raises(ValueError, match="is already a run"):  # before images are looked for
        train(tiny(data__source=str(tmp_path / "no images")), run, quiet=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        train(tiny(), tmp_path / "mine", data=images(), quiet=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tiny(optim__lr=1e30)
    good = tiny(schedule=ScheduleConfig(kind="step", at_epochs=(1,), factors=(1e38,)), checkpoint_steps=1, epochs=4)
    with pytest.raises(FloatingPointError, match=r"not finite in epoch 1, step \d.*no checkpoint yet.*--optim.lr"):
        train(bad, tmp_path / "bad", data=images())
    with pytest.raises(FloatingPointError, match=r"epoch 2, step \d.*checkpoint of step \d+ is from before that"):
        train(good, tmp_path / "good", data=images())
    checkpoint, _ = left(tmp_path / "good")
    assert all(t.isfinite().all() for name, t in checkpoint.tensors.items() if "running" not in name)
    with pytest.raises(ValueError, match="not finished"):
        result_of(tmp_path / "good")


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="device = 'tpu'"):
        resolve_device("tpu")


# --- starting from a saved network -------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["0123456789", "1023456789", "abcdefghij"])
def test_init_keeps_the_head_of_the_same_classes_only(
    names: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = polypath.load(run / "model")
    polypath.save(saved, tmp_path / "named", classes=list(names))
    recipe = tiny(epochs=1, optim__lr=0.0, objective=Whole(), init=str(tmp_path / "named"))
    with caplog.at_level("INFO", "polypath"):
        train(recipe, tmp_path / "run", data=images(), quiet=True)
    same = names == "0123456789"
    tuned = polypath.load(tmp_path / "run/model")
    head = "head.classifier.weight"
    assert torch.equal(tuned.state_dict()[head], saved.state_dict()[head]) == same
    assert ("so the classifier is new" in caplog.text) != same
    assert tuned.class_names == tuple("0123456789")
    key = "block2.branch2.unit1.conv.weight"
    assert torch.equal(tuned.state_dict()[key], saved.state_dict()[key])


def test_init_from_a_run_an_extracted_path_and_other_classes(run: Path, tmp_path: Path) -> None:
    whole = polypath.load(run / "model")
    polypath.save(polypath.extract(whole, "branches=2"), tmp_path / "child")
    changes = {"epochs": 1, "optim__lr": 0.0, "model__num_classes": 12, "objective": Whole()}
    result = train(tiny(**changes, init=str(tmp_path / "child")), tmp_path / "b", data=images(), quiet=True)
    tuned = polypath.load(tmp_path / "b" / "model")
    assert tuned.num_classes == 12
    assert tuned.class_names == (*"0123456789", "unused 10", "unused 11")
    assert "branch1" not in " ".join(tuned.state_dict())
    assert result.parameters < sum(p.numel() for p in whole.parameters())
    key = "block2.branch2.unit1.conv.weight"
    assert torch.equal(tuned.state_dict()[key], whole.state_dict()[key])
    again = train(tiny(epochs=1, optim__lr=0.0, init=str(run)), tmp_path / "c", data=images(), quiet=True)
    assert again.parameters == sum(p.numel() for p in whole.parameters())
    larger = tiny(epochs=1, init=str(tmp_path / "child"), data__size=12, objective=Whole())
    train(larger, tmp_path / "e", quiet=True)
    tuned = polypath.load(tmp_path / "e" / "model")
    assert tuple(tuned.config.get("image", {}).get("size", ())) == (12, 12)
    assert not torch.equal(tuned.state_dict()[key], whole.state_dict()[key])
    with pytest.raises(ValueError, match="nowhere"):
        train(tiny(init=str(tmp_path / "nowhere")), tmp_path / "d", data=images(), quiet=True)
    assert not (tmp_path / "d").exists()


def test_init_of_another_network_is_refused_with_the_field_that_differs(run: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"model__widths": (4, 6)}, r"model\.widths = \(4, 6\): must be \(4, 4\), as in init = "),
        ({"model__dropout": 0.2}, r"model\.dropout = 0\.2: must be 0\.1, as in init = "),
        (
            {"model": PlainNet(depth=5, width=4, in_chans=1)},
            "model is a plain, but the network in init = .* is a crescend",
        ),
    ):
        recipe = tiny(**changes, objective=Whole(), init=str(run))
        with pytest.raises(ValueError, match=words):
            train(recipe, tmp_path / "new", data=images(), quiet=True)
        assert not (tmp_path / "new").exists()
    recipe = tiny(model__init="he", model__num_classes=5, init=str(run))  # what is drawn anew
    assert build_net(recipe).num_classes == 5


def test_pretrained_is_the_network_that_comes_with_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    recipe = replace(get_recipe("fractalnet-cifar10-bundle"), {"init": "pretrained"})
    shipped = polypath.load(SHIPPED)
    assert equal(build_net(recipe, classes=shipped.class_names).state_dict(), shipped.state_dict())
    column = build_net(replace(recipe, {"path": "column=1", "model.num_classes": 3}))
    assert column.num_classes == 3
    key = "block1.column1.unit1.conv.weight"
    assert torch.equal(column.state_dict()[key], shipped.state_dict()[key])
    bound: Any = Taught(teacher="pretrained").bind(shipped)
    assert equal(bound.teachers[0].state_dict(), shipped.state_dict())
    assert main(["train", "crescendonet-digits", "--init", "pretrained", "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "model is a crescendonet, but the network in init = 'pretrained' is a fractalnet" in err
    assert not (tmp_path / "run").exists()


# --- snapshots ---------------------------------------------------------------------------------------------


def test_snapshots_are_kept_and_scored_together(tmp_path: Path) -> None:
    schedule = ScheduleConfig(kind="cyclic-cosine", cycles=2)
    result = train(tiny(epochs=4, schedule=schedule, data__validation=0), tmp_path / "a", quiet=True)
    assert sorted(p.name for p in (tmp_path / "a" / "snapshots").iterdir()) == ["1.safetensors", "2.safetensors"]
    assert result.snapshots.keys() == {"1", "2", "ensemble"}
    assert result.snapshots["2"] == pytest.approx(result.test_error)
    saved = polypath.load(tmp_path / "a" / "model").state_dict()
    checkpoint, _ = left(tmp_path / "a")
    assert all(torch.equal(t, checkpoint.tensors[f"model/{k}"]) for k, t in saved.items())


# --- warnings ----------------------------------------------------------------------------------------------


def test_a_branch_that_never_ran_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Never(DropPath, kind="never"):
        def bind(self, net, *, label_smoothing=0.0):
            return OnePath(paths="branches=1,2").bind(net)

    result = train(tiny(epochs=1, objective=Never()), tmp_path / "a", data=images())
    assert result.notes == [f"block{b}.join: operand 3 never ran in 5 steps, so it has not learned" for b in (1, 2)]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == result.notes
    log = (tmp_path / "a" / "log.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in log] == result.notes
