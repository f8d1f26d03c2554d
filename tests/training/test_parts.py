"""The small parts of a run: sums, scores, warnings, files, trackers, progress."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import images, tiny
from torch.nn import functional as F

from polypath.core.paths import Paths
from polypath.families.crescendonet import CrescendoNet
from polypath.storage.digests import json_digest
from polypath.storage.files import read_json, remove, whole
from polypath.training import advice
from polypath.training.build import eval_batches
from polypath.training.distributed import World
from polypath.training.engine import mixed
from polypath.training.evaluate import evaluate
from polypath.training.loop import train
from polypath.training.meter import Meter
from polypath.training.progress import TrainingProgress
from polypath.training.recipe import replace
from polypath.training.recipes import get_recipe
from polypath.training.run import environment, revision
from polypath.training.sweep import sweep
from polypath.training.trackers import Trackers, draw_curves, open_service

CPU = torch.device("cpu")


# --- sums --------------------------------------------------------------------------------------------------


def test_means_do_not_depend_on_when_they_are_fetched(rng: torch.Generator) -> None:
    values = torch.randn(40, generator=rng)
    at_once, often, stopped = (Meter(World()) for _ in range(3))
    for step, value in enumerate(values):
        for meter in (at_once, often, stopped):
            meter.add(step, "loss", value)
        often.flush()
        if step == 17:
            stopped.flush()
            kept = json.loads(json.dumps(stopped.state()))
            stopped = Meter(World())
            stopped.load(kept)
    for meter in (at_once, stopped):
        meter.flush()
    assert at_once.means() == often.means() == stopped.means()
    assert at_once.means()["loss"] == pytest.approx(float(values.double().mean()))


def test_parts_of_a_step_add_up_and_rare_names_have_their_own_count() -> None:
    meter = Meter(World())
    for step in range(4):
        meter.add(step, "loss", torch.tensor(1.0))
        meter.add(step, "loss", torch.tensor(2.0))
    meter.add(3, "rate", torch.tensor(0.5))
    assert meter.flush() == [(s, {"loss": 3.0}) for s in range(3)] + [(3, {"loss": 3.0, "rate": 0.5})]
    assert meter.means() == {"loss": 3.0, "rate": 0.5}
    assert meter.flush() == []


# --- scores ------------------------------------------------------------------------------------------------


def test_scores_are_those_of_all_images_at_once() -> None:
    net = tiny().model.build(3)
    batches = eval_batches("test", images(), tiny(), CPU, World())
    scores = evaluate(net.train(), net, batches, World())
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        logits = net.eval()(x)
    assert scores.loss == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert scores.error == pytest.approx(100 * float((logits.argmax(1) != y).float().mean()))
    assert scores.images == len(images().test)


def test_mixing_takes_its_draws_from_the_generator_and_leaves_numpys() -> None:
    import numpy as np
    from timm.data.mixup import Mixup

    mixup, y = Mixup(0.4, num_classes=10), torch.arange(5)
    x = torch.randn(5, 1, 4, 4)
    np.random.seed(1)
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    a, b, c = (mixed(mixup, x.clone(), y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[0], c[0])
    torch.testing.assert_close(a[1].sum(1), torch.ones(5))
    assert torch.equal(a[0][-1], x[-1])  # the odd one out
    assert a[1][-1].tolist() == F.one_hot(torch.tensor(4), 10).tolist()


# --- warnings ----------------------------------------------------------------------------------------------


def test_a_rising_loss_is_reported_once_it_is_above_its_start() -> None:
    def rows(*losses: float) -> list[dict[str, float]]:
        return [{"train_loss": loss, "lr": 0.5} for loss in losses]

    text = advice.rising_loss(rows(2.0, 1.9, 2.1, 2.3, 2.6))
    assert text is not None
    assert "risen for 3 epochs (1.9 to 2.6)" in text
    assert "--optim.lr" in text
    assert advice.rising_loss(rows(2.0, 1.9, 2.1, 2.0, 2.6)) is None
    assert advice.rising_loss(rows(9.0, 1.9, 2.1, 2.3, 2.6)) is None
    assert advice.rising_loss(rows(2.0, 2.1, 2.2)) is None


def errors(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [
        {"epoch": i + 1, "train_error": train, "val_error": held, "lr": 0.3} for i, (train, held) in enumerate(pairs)
    ]


def test_the_error_of_guessing() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    assert advice.chance(labels, balanced=False) == pytest.approx(40.0)
    assert advice.chance(labels, balanced=True) == pytest.approx(200 / 3)


def test_guessing_is_reported_after_some_epochs() -> None:
    text = advice.at_chance(errors(*[(74.0, 75.0)] * 6), 75.0, ("--init pretrained",))
    assert text is not None
    assert text.startswith("no better than guessing: after 6 epochs the lowest error is 74.0%")
    assert "--optim.lr to a third of 0.3" in text
    assert "--init pretrained" in text
    begun = advice.at_chance(errors(*[(74.0, 75.0)] * 6), 75.0)
    assert begun is not None
    assert "--init" not in begun
    assert advice.at_chance(errors(*[(74.0, 75.0)] * 4), 75.0) is None
    assert advice.at_chance(errors(*[(74.0, 75.0)] * 5, (70.0, 75.0)), 75.0) is None
    assert advice.at_chance(errors((60.0, 75.0), *[(74.0, 75.0)] * 5), 75.0) is None


def test_over_fitting_is_reported() -> None:
    text = advice.over_fitting(errors(*[(50.0, 50.0)] * 5, (2.0, 30.0)), 75.0, ("--data.augment.policy trivial",))
    assert text is not None
    assert text.startswith("over-fitting: 2.0% error on training images and 30.0% on held-out ones in epoch 6;")
    assert "--data.augment.policy trivial" in text
    for last in ((20.0, 30.0), (2.0, 12.0), (28.0, 90.0)):
        assert advice.over_fitting(errors(*[(50.0, 50.0)] * 5, last), 75.0) is None
    assert advice.over_fitting(errors((2.0, 30.0)), 75.0) is None
    unheld = [{"epoch": 9, "train_error": 2.0, "lr": 1.0}] * 6
    assert advice.over_fitting(unheld, 75.0) is None
    text = advice.over_fitting([*unheld[:-1], unheld[-1] | {"test_error": 30.0}], 75.0)
    assert text is not None
    assert "2.0% error on training images and 30.0% on test images" in text
    uneven = errors(*[(50.0, 50.0)] * 5, (2.0, 4.0))
    uneven[-1]["val_balanced_error"] = 30.0
    text = advice.over_fitting(uneven, 50.0)
    assert text is not None
    assert text.endswith("more images help most")


def test_only_unused_options_are_suggested() -> None:
    mine = get_recipe("my-images")
    every = ("--init pretrained", "--data.augment.policy trivial", "--label-smoothing 0.1")
    assert advice.untried(mine) == every
    assert advice.untried(replace(mine, {"init": "pretrained"})) == every[1:]
    assert advice.untried(replace(mine, {"data.augment.policy": "rand", "label_smoothing": 0.2})) == every[:1]
    assert advice.untried(replace(mine, {"model": CrescendoNet(widths=(8,))})) == every[1:]  # other weights do not fit


def test_gates_that_are_stuck() -> None:
    row = {"rate/a/loop1": 0.999, "rate/a/loop2": 0.5, "rate/b/loop1": 0.0, "train_loss": 0.0}
    assert [text.split(":")[0] for text in advice.stuck_gates(row)] == [
        "gate a/loop1 is stuck open",
        "gate b/loop1 is stuck shut",
    ]


def test_operands_that_never_ran() -> None:
    net, seen = tiny().model.build(0), set()
    advice.operands_of(net.wiring, [net.paths("branches=1"), net.paths("block2.join=3")], seen)
    assert advice.never_ran(net.wiring, seen, 7) == [
        "block2.join: operand 2 never ran in 7 steps, so it has not learned"
    ]
    advice.operands_of(net.wiring, [Paths()], seen)
    assert advice.never_ran(net.wiring, seen, 7) == []


# --- files -------------------------------------------------------------------------------------------------


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")

    def fail() -> None:
        with whole(file) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert file.read_bytes() == b"old"
    with whole(file) as temporary:
        temporary.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    remove(file)
    remove(file)
    assert not file.exists()


def test_digests_and_json(tmp_path: Path) -> None:
    assert json_digest({"a": 1, "b": [0.1]}) == json_digest({"b": [0.1], "a": 1}) != json_digest({"a": 1, "b": [0.2]})
    for text in ("{", "\x00", "[" * 100_000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=r"x\.json: is damaged or not JSON"):
            read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"y\.json: No such file"):
        read_json(tmp_path / "y.json")


def test_the_environment_names_what_results_depend_on() -> None:
    here = environment(CPU)
    assert here["torch"] == torch.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["device_name"]
    assert (now := revision()) is None or len(now.removesuffix("+changes")) == 40


# --- trackers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_services_are_told_by_one_adapter(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list = []
    fake: Any = ModuleType(service)
    fake.init = lambda **options: told.append(("init", options["project"], options["config"]["name"], known(options)))
    fake.log = lambda values, step: told.append((step, values))
    fake.finish = lambda: told.append("finish")
    monkeypatch.setitem(sys.modules, service, fake)

    def known(options: dict) -> str:
        print("the service says something")
        assert options["resume"] == "allow"
        return options["id" if service == "wandb" else "name"]

    for folder in ("a/run", "b/run", "a/run"):  # the last one is resumed
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        trackers = Trackers(tmp_path / folder, tiny(tracker=service))
        trackers.log(5, {"val_error": 3.0})
        trackers.close()
    assert told[1:3] == [(5, {"val_error": 3.0}), "finish"]
    begun, other, resumed = told[::3]
    assert begun[:3] == ("init", "polypath", "tiny")
    assert begun == resumed != other
    assert capsys.readouterr().out == ""
    assert list((tmp_path / "a/run").glob("events.*"))


def test_a_missing_service_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'polypath\[wandb\]'"):
        open_service("wandb", tmp_path, {})
    with pytest.raises(ImportError, match=r"pip install 'polypath\[wandb\]'"):  # before anything is read or made
        train(tiny(tracker="wandb"), tmp_path / "run")
    with pytest.raises(ImportError, match=r"pip install 'polypath\[wandb\]'"):
        sweep(tiny(tracker="wandb"), [0], None, tmp_path / "sweep")
    assert not list(tmp_path.iterdir())


def test_curves_of_nothing_and_of_one_epoch(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "none.png", "none")
    draw_curves([{"epoch": 1, "train_loss": 1.0, "train_error": 50.0}], tmp_path / "one.png", "one")
    assert (tmp_path / "one.png").stat().st_size > (tmp_path / "none.png").stat().st_size > 1000


def test_a_line_a_minute_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: list[float] = [0.0]
    told: list[str] = []
    monkeypatch.setattr("polypath.training.progress.time.monotonic", lambda: clock[0])
    progress = TrainingProgress(100, 10, tell=told.append)
    for _ in range(10):
        clock[0] += 25.0
        progress.advance()
    left = {13: "0:36:15", 16: "0:35:00", 19: "0:33:45"}
    assert told == [f"step {done} of 100, about {time} left" for done, time in left.items()]


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(3) as progress:
        assert not progress.shown
        progress.advance()
        progress.describe("epoch 1")
    assert capsys.readouterr() == ("", "")
