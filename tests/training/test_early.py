"""Early stopping, a frozen start, layer-wise learning rates, balanced classes."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import equal, images, left, tiny
from torch import nn

from polypath.analysis.finished_run import FinishedRun
from polypath.core.batchnorm import batch_statistics, buffers
from polypath.core.paths import Paths
from polypath.data.split import Split
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.search.search import search
from polypath.storage.loading import load
from polypath.training.build import build_net, train_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.evaluate import Scores
from polypath.training.loop import resume, train
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig, build_optimizer, places_of
from polypath.training.recipe import Recipe
from polypath.training.result import result_of
from polypath.training.run import RunFolder
from polypath.training.sandwich import Sandwich

CPU = torch.device("cpu")


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# --- early stopping --------------------------------------------------------------------------------------------


PATIENT = {"objective": Whole(), "epochs": 9, "patience": 2}


@pytest.fixture
def worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch is the best: errors grow with the steps that a network has been trained for."""

    def score(net: torch.nn.Module, *_: Any) -> Scores:
        steps = max(int(b) for name, b in net.named_buffers() if name.endswith("num_batches_tracked"))
        return Scores(1.0, 10.0 + steps, 60, 10.0 + steps)

    monkeypatch.setattr("polypath.training.loop.evaluate", score)


@pytest.mark.usefixtures("worse")
def test_a_run_stops_after_its_patience_and_reports_the_best(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "polypath"):
        result = train(tiny(**PATIENT), tmp_path / "run", data=images())
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2, 3]
    assert (result.reported, result.epoch, result.steps) == ("best", 1, 15)
    assert (result.val_error, result.test_error) == (15.0, 15.0)
    assert "stopped after 3 of 9 epochs, since the error did not improve for 2 epochs" in caplog.text
    assert RunFolder.open(tmp_path / "run").finished


@pytest.mark.usefixtures("worse")
def test_killed_after_early_stopping_it_ends_as_if_uninterrupted(tmp_path: Path, monkeypatch) -> None:
    train(tiny(**PATIENT), tmp_path / "calm", data=images(), quiet=True)

    class Killed(Exception):
        pass

    step, weights = Engine.step, Engine.weights

    def dies(self: Engine, parts: Any, total: int, epoch: int, at: int, flag: int = 0) -> int:
        if at == 12:
            raise Killed
        return step(self, parts, total, epoch, at, flag)

    def dies_late(self: Engine) -> Any:
        raise Killed

    monkeypatch.setattr(Engine, "step", dies)
    with pytest.raises(Killed):
        train(tiny(**PATIENT), tmp_path / "run", data=images(), quiet=True)
    monkeypatch.setattr(Engine, "step", step)
    monkeypatch.setattr(Engine, "weights", dies_late)  # when it has stopped, and is not finished
    with pytest.raises(Killed):
        resume(tmp_path / "run", data=images(), quiet=True)
    monkeypatch.setattr(Engine, "weights", weights)
    resume(tmp_path / "run", data=images(), quiet=True)
    (one, rows), (two, others) = left(tmp_path / "calm"), left(tmp_path / "run")
    assert (one.step, rows) == (two.step, others)
    assert equal(one.tensors, two.tensors)
    assert len(rows_of(tmp_path / "run")) == 3


@pytest.mark.usefixtures("worse")
def test_a_run_that_stopped_early_continues_with_new_patience(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(**PATIENT), run, data=images(), quiet=True)
    with pytest.raises(ValueError, match=r"epochs = 3: must be more than the 3 that .* has already been trained for"):
        resume(run, epochs=3, data=images(), quiet=True)
    assert resume(run, epochs=4, data=images(), quiet=True).steps == 20
    assert resume(run, epochs=12, data=images(), quiet=True).steps == 30  # two more than the four
    found = resume(run, epochs=12, data=images(), quiet=True)
    assert (found.steps, found.epoch, found.test_evaluations) == (40, 1, 4)
    assert [row["epoch"] for row in rows_of(run)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(file.name for file in run.glob("summary*")) == [
        *(f"summary-{n}.json" for n in (3, 4, 6)),
        "summary.json",
    ]


def test_of_epochs_with_the_same_error_the_least_loss_is_the_best(tmp_path: Path, monkeypatch) -> None:
    found = iter([(2.0, 30.0), (1.0, 30.0), (1.5, 30.0), (9.0, 9.0)])  # the last is the test split's

    def score(*_: Any) -> Scores:
        loss, error = next(found)
        return Scores(loss, error, 60, error)

    monkeypatch.setattr("polypath.training.loop.evaluate", score)
    result = train(tiny(objective=Whole()), tmp_path / "run", data=images(), quiet=True)
    assert (result.epoch, result.val_error) == (2, 30.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"patience": 2, "data__validation": 0},
            "patience = 2: early stopping needs held-out images; set --data.valid",
        ),
        ({"patience": -1}, "patience = -1: must be a whole number"),
        ({"frozen_epochs": 3}, "frozen_epochs = 3: must be below epochs = 3"),
        ({"optim__first_lr": 0.0}, r"optim.first_lr = 0.0: must be a number in \(0"),
        ({"optim__head_lr": 0.0}, r"optim.head_lr = 0.0: must be a finite number above 0"),
        ({"data__augment__policy": "auto"}, "policy = 'auto': must be one of none, trivial, rand"),
        ({"data__augment__erase": 1.5}, "erase = 1.5"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


# --- a frozen start, rates by depth --------------------------------------------------------------------------------


def test_in_a_frozen_start_only_the_classifier_learns() -> None:
    recipe = tiny(frozen_epochs=1, objective=Whole())
    batches = train_batches(images(), recipe, CPU, World())
    engine = Engine(recipe, build_net(recipe), CPU, World(), len(batches))
    changed: list[set[str]] = []
    for epoch in range(2):
        before = {name: p.detach().clone() for name, p in engine.net.named_parameters()}
        engine.start_epoch(epoch)
        batches.set_epoch(epoch)
        for step, (x, y) in enumerate(batches):
            engine.step([(0, x, y)], len(y), epoch, epoch * len(batches) + step)
        changed.append({name for name, p in engine.net.named_parameters() if not torch.equal(p, before[name])})
    assert changed[0] == {"head.classifier.weight", "head.classifier.bias"}
    assert changed[1] == set(dict(engine.net.named_parameters()))


@pytest.mark.parametrize("model", [FractalNet(filters=(4, 8, 8)), CrescendoNet(widths=(4, 4), scale=3)])
def test_rates_rise_with_depth_by_equal_factors(model: Any) -> None:
    net = model.build(0)
    places = places_of(net)
    assert places.keys() == dict(net.named_parameters()).keys()
    assert min(places.values()) == 0.0
    assert places["head.classifier.weight"] == max(places.values()) == 1.0
    optimizer = build_optimizer(net, OptimConfig(lr=0.4, first_lr=0.1, weight_decay=1e-4, decay="matrices"))
    rates = {id(p): group["lr_times"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in net.named_parameters():
        assert rates[id(p)] == pytest.approx(0.1 ** (1 - places[name]))
    plain = build_optimizer(net, OptimConfig(lr=0.4, weight_decay=1e-4, decay="matrices"))
    assert {group["lr_times"] for group in plain.param_groups} == {1.0}


def test_the_classifier_can_have_a_rate_of_its_own() -> None:
    net = FractalNet(filters=(4, 8, 8)).build(0)
    optimizer = build_optimizer(net, OptimConfig(lr=0.4, first_lr=0.1, head_lr=5.0))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    places = places_of(net)
    for name, p in net.named_parameters():
        times = 5.0 if name.startswith("head.classifier.") else 0.1 ** (1 - places[name])
        assert rates[id(p)] == pytest.approx(0.4 * times)


# --- frozen statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [Whole(), Sandwich(labels=0.5)])
def test_frozen_norms_keep_the_statistics_that_init_gave(objective: Any, tmp_path: Path) -> None:
    train(tiny(objective=Whole(), epochs=1), tmp_path / "first", data=images(), quiet=True)
    begun = load(tmp_path / "first" / "model").state_dict()
    recipe = tiny(objective=objective, epochs=1, norms="frozen", init=str(tmp_path / "first"))
    train(recipe, tmp_path / "tuned", data=images(), quiet=True)
    tuned = load(tmp_path / "tuned" / "model").state_dict()
    kept = {name for name in begun if torch.equal(begun[name], tuned[name])}
    assert kept == {name for name in begun if "running_" in name or "num_batches" in name}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_normalise_every_path_by_their_statistics(frozen: bool) -> None:
    net = FractalNet(filters=(4,), columns=2).build(0)
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).train(not frozen)
    with batch_statistics(net.modules()):
        out = norm(torch.randn(64, 4, 5, 5) * 3 + 7)
    assert norm.training != frozen
    assert (out.mean() > 6) == frozen
    assert torch.equal(buffers(norm)[0], torch.zeros(4))


def test_paths_of_a_run_with_frozen_norms_are_not_recalibrated(tmp_path: Path) -> None:
    train(tiny(objective=Whole(), epochs=1), tmp_path / "first", data=images(), quiet=True)
    recipe = tiny(objective=Sandwich(labels=0.5), epochs=1, norms="frozen", init=str(tmp_path / "first"))
    train(recipe, tmp_path / "tuned", data=images(), quiet=True)
    first, tuned = (FinishedRun(tmp_path / name, data=images()) for name in ("first", "tuned"))
    assert first.recalibrated([Paths()], 4) is not None
    assert tuned.recalibrated([Paths()], 4) is None
    found = search(tuned, num_images=4, timed_paths=3, keep=2, size=8)
    assert found.statistics == {"search": None, "confirm": None}
    with pytest.raises(ValueError, match="recalibrate = 20: must be 0, because norms = 'frozen'"):
        dataclasses.replace(recipe, recalibrate=20)


def test_frozen_norms_need_statistics() -> None:
    with pytest.raises(ValueError, match="norms = 'frozen': needs init"):
        tiny(norms="frozen")


# --- classes drawn alike ---------------------------------------------------------------------------------------------


def test_balanced_runs_choose_by_the_mean_of_the_classes_errors(tmp_path: Path) -> None:
    import dataclasses

    data = images()
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    few = {c: 4 if c else 40 for c in range(10)}  # of the zero many, of the others few
    at = torch.cat([(data.train.labels == c).nonzero().squeeze(1)[:n] for c, n in few.items()])
    uneven = dataclasses.replace(data, train=data.train.subset(at))
    recipe: Recipe = tiny(data__balanced=True, batch_size=8, objective=Whole(), optim__lr=0.05, epochs=4)
    result = train(recipe, tmp_path / "run", data=uneven, quiet=True)
    rows = rows_of(tmp_path / "run")
    best = min(rows, key=lambda row: (row["val_balanced_error"], row["val_loss"]))
    assert (result.epoch, result.val_error) == (best["epoch"], best["val_error"])
    assert result.balanced_error is not None
    assert result.balanced_error == pytest.approx(result.test_error, abs=15)  # test images are nearly alike
    assert result_of(tmp_path / "run") == result
    plain = train(tiny(epochs=1), tmp_path / "plain", data=images(), quiet=True)
    assert plain.balanced_error is None
    assert "val_balanced_error" not in rows_of(tmp_path / "plain")[0]
