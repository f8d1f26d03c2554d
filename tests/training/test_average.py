"""Averages of weights: their values, their statistics, and bitwise resuming of a run with an average."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import equal, images, left, tiny
from torch import Tensor

from polypath.core.recalibrate import recalibrate
from polypath.ensemble import Ensemble
from polypath.storage.loading import load
from polypath.training.average import Average, swa_begins, swa_weight
from polypath.training.build import eval_batches, statistics_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.loop import resume, train
from polypath.training.path_objectives import SharedEnsemble
from polypath.training.recipe import ParallelConfig, Recipe
from polypath.training.sandwich import Sandwich

ROUTES = SharedEnsemble(routes=("branches=1", "branches=2,3"))
SANDWICH = Sandwich(images=0.5, draw="uniform")


def test_steps_of_swa_weigh_the_same() -> None:
    assert [swa_begins(share, 10) for share in (0.0, 0.1, 0.25, 0.5, 1.0)] == [9, 9, 8, 5, 0]
    average = 0.0
    values = [5.0, 1.0, 2.0, 4.0, 8.0]
    for step, value in enumerate(values):
        average += swa_weight(2, step) * (value - average)
        assert average == pytest.approx(value if step < 2 else sum(values[2 : step + 1]) / (step - 1))


@pytest.mark.parametrize("changes", [{"ema": 0.8}, {"swa": 0.5, "recalibrate": 9}])
def test_the_network_and_the_objectives_state_are_averaged(changes: dict[str, Any]) -> None:
    recipe = tiny(objective=ROUTES, epochs=3, **changes)
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 2)
    assert engine.average is not None

    def now(bound: Any) -> dict[str, Tensor]:
        held = bound.net.state_dict() | {f"objective/{name}": t for name, t in bound.state_dict().items()}
        return {name: t.clone() for name, t in held.items() if t.is_floating_point()}

    hand, taken = now(engine.bound), []
    for step in range(6):
        x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
        engine.start_epoch(step // 2)
        engine.step([(0, x, y)], 8, step // 2, step)
        taken.append(now(engine.bound))
        for name, t in taken[-1].items():
            alike = torch.stack([state[name] for state in taken[3:] or taken[-1:]]).mean(0)
            hand[name] = 0.8 * hand[name] + 0.2 * t if "ema" in changes else alike
    averaged = now(engine.average.bound)
    assert any(name.startswith("objective/") for name in averaged)
    for name, t in averaged.items():
        torch.testing.assert_close(t, hand[name], rtol=1e-5, atol=1e-6)
    name = "block1.branch1.unit1.conv.weight"
    assert not torch.allclose(averaged[name], taken[-1][name])
    assert engine.scored is engine.average.bound.net
    told = {f"objective/{name}": t for name, t in engine.objective_state().items() if t.is_floating_point()}
    assert equal(told, {name: t for name, t in averaged.items() if name in told})


def test_statistics_of_an_ensembles_average_are_recalibrated_for_every_route(tmp_path: Path) -> None:
    recipe = tiny(objective=ROUTES, ema=0.9, recalibrate=100, epochs=2, data__validation=0)
    result = train(recipe, tmp_path / "run", data=images_of(recipe), quiet=True)
    saved = load(tmp_path / "run" / "model")
    stats = re_estimated(saved, recipe, ["branches=1", "branches=2,3"])
    ensemble = Ensemble.load(tmp_path / "run" / "ensemble.safetensors")
    checkpoint, _ = left(tmp_path / "run")
    for name, _ in saved.named_parameters():
        assert torch.equal(saved.state_dict()[name], checkpoint.tensors[f"ema/{name}"])
        assert torch.equal(ensemble.state_dict()[f"net.{name}"], checkpoint.tensors[f"ema/{name}"])
    for member, path in ensemble.paths.items():
        for norm, (mean, var) in stats[path].items():
            bank = ensemble.get_submodule(f"members.{member}")
            torch.testing.assert_close(bank.get_buffer(f"{norm}.running_mean"), mean)
            torch.testing.assert_close(bank.get_buffer(f"{norm}.running_var"), var)
    batches = eval_batches("test", images_of(recipe), recipe, torch.device("cpu"), World())
    with torch.no_grad():
        right = sum(int((ensemble(x).argmax(1) == y).sum()) for x, y in batches)
    assert result.test_error == pytest.approx(100.0 * (1.0 - right / result.test_images))


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"swa": 0.5, "objective": SANDWICH}])
def test_a_reported_averages_statistics_are_recalibrated(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny(epochs=2, recalibrate=100, **changes)
    train(recipe, tmp_path / "run", data=images(), quiet=True)
    saved = load(tmp_path / "run" / "model")
    (bank,) = re_estimated(saved, recipe, ["whole"]).values()
    for norm, (mean, var) in bank.items():
        torch.testing.assert_close(saved.get_buffer(f"{norm}.running_mean"), mean)
        torch.testing.assert_close(saved.get_buffer(f"{norm}.running_var"), var)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "recalibrate": 50, "objective": ROUTES},
        {"swa": 0.6, "recalibrate": 50, "objective": SANDWICH},
        {"objective": dataclasses.replace(SANDWICH, draw="paths", curriculum="cheapest-first", until=1.0)},
    ],
)
def test_interrupted_runs_resume_to_the_bit(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(epochs=2, checkpoint_steps=2, **changes)
    train(recipe, tmp_path / "calm", data=images(), quiet=True)
    step = Engine.step

    def killed(self: Engine, parts: Any, total: int, epoch: int, at: int, flag: int = 0) -> int:
        if at == 8:  # within the second epoch
            raise RuntimeError("killed")
        return step(self, parts, total, epoch, at, flag)

    with monkeypatch.context() as inner:
        inner.setattr(Engine, "step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe, tmp_path / "run", data=images(), quiet=True)
    resume(tmp_path / "run", data=images(), quiet=True)
    (calm, rows), (again, others) = left(tmp_path / "calm"), left(tmp_path / "run")
    assert rows == others
    assert equal(calm.tensors, again.tensors)
    assert equal(load(tmp_path / "calm" / "model").state_dict(), load(tmp_path / "run" / "model").state_dict())


def test_what_cannot_be_averaged_is_refused_by_field() -> None:
    with pytest.raises(ValueError, match=r"swa = 0\.5 with ema = 0\.9"):
        tiny(ema=0.9, swa=0.5, recalibrate=9)
    with pytest.raises(ValueError, match=r"swa = 1\.5"):
        tiny(swa=1.5)
    with pytest.raises(ValueError, match=r"swa = 0\.5 with recalibrate = 0"):
        tiny(swa=0.5)
    with pytest.raises(ValueError, match="recalibrate = 1: must be 0 or"):
        tiny(recalibrate=1)
    for changes, word in (({"swa": 0.5, "recalibrate": 9}, "swa"), ({"ema": 0.5}, "ema")):
        recipe = tiny(parallel=ParallelConfig(strategy="fsdp"), **changes)
        with pytest.raises(ValueError, match=f"^{word} with parallel.strategy 'fsdp'"):
            Average(recipe, recipe.model.build(0), 10)


def images_of(recipe: Recipe) -> Any:
    from polypath.data.sources import load_images

    return load_images(recipe.data)


def re_estimated(net: Any, recipe: Recipe, paths: list[str]) -> Any:
    batches = statistics_batches(images_of(recipe), recipe, torch.device("cpu"))
    return recalibrate(net, paths, batches, recipe.recalibrate)
