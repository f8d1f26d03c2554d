"""The PFLOP of a run against counts by hand, and the number of evaluations on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny
from torch import nn

import polypath as pp
from polypath.core.builder import NetBuilder
from polypath.core.network import PathNet
from polypath.profiling.cost import PathMacs, macs_in_turn
from polypath.training.expected import expected_pflop
from polypath.training.flop import FlopCounter
from polypath.training.loop import resume, train
from polypath.training.objectives import Whole
from polypath.training.path_objectives import Distil, DropPath, Exits
from polypath.training.recipe import Recipe
from polypath.training.run import RunFolder
from polypath.training.sandwich import Sandwich

STEM, SHORT, LONG, HEAD = 3 * 4 * 9, 4 * 8, 4 * 8 * 9, 8 * 5  # MACs a pixel, but of the head


def net() -> PathNet:
    b = NetBuilder()
    stem = b.add("stem", b.input, nn.Conv2d(3, 4, 3, padding=1))
    short = b.add("short", stem, nn.Conv2d(4, 8, 1))
    long = b.add("long", stem, nn.Conv2d(4, 8, 3, padding=1))
    z = b.add(
        "head.pool", b.join("join", {"1": short, "2": long}), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    return b.net(b.add("head.classifier", z, nn.Linear(8, 5)))


def counted(call: Callable[[PathNet, torch.Tensor], Any]) -> int:
    made, counter = net(), FlopCounter()
    counter.watch(made, PathMacs(made))
    call(made, torch.zeros(6, 3, 5, 7))
    taken = counter.take()
    assert counter.take() == 0
    return taken


def test_passes_counted_by_hand() -> None:
    whole, short = 35 * (STEM + SHORT + LONG) + HEAD, 35 * (STEM + SHORT) + HEAD
    forward = 6 * 2  # images; operations of a MAC
    assert counted(lambda made, x: made(x)) == 3 * forward * whole
    assert counted(lambda made, x: made(x, paths="join=1")) == 3 * forward * short
    assert counted(lambda made, x: (made(x, "join=1"), made(x[:2]))) == 3 * 2 * (6 * short + 2 * whole)
    assert counted(lambda made, x: made(x, frozen=["long", "stem"])) == forward * (3 * whole - 2 * 35 * (LONG + STEM))
    assert counted(lambda made, x: made.eval()(x)) == 0  # validation

    def taught(made: PathNet, x: torch.Tensor) -> None:
        with torch.no_grad():
            made(x)
        made(x, paths="join=1")

    assert counted(taught) == forward * (whole + 3 * short)


def test_a_teacher_counts_in_evaluation_too() -> None:
    made, counter = net().eval(), FlopCounter()
    counter.watch(made, PathMacs(made), teacher=True)
    with torch.no_grad():
        made(torch.zeros(2, 3, 5, 7))
    assert counter.take() == 2 * 2 * (35 * (STEM + SHORT + LONG) + HEAD)


SMALL = {"epochs": 2, "data__train_images": 64, "model__scale": 2}  # an epoch: 64 images of 8×8 pixels


def macs(recipe: Recipe, paths: str | None = None) -> int:
    return pp.cost(recipe.model.build(0), paths, size=8).macs


def test_a_run_says_its_pflop_and_its_looks_at_the_test_split(tmp_path: Path) -> None:
    recipe = tiny(**SMALL, trace_test=True, objective=Whole())
    result = train(recipe, tmp_path / "run", quiet=True)
    epoch = 64 * 3 * 2 * macs(recipe) / 1e15
    assert result.pflop == pytest.approx(2 * epoch, rel=1e-12)
    rows = [row["pflop"] for row in RunFolder.open(tmp_path / "run").metrics()]
    assert rows == pytest.approx([epoch, 2 * epoch], rel=1e-12)
    assert result.test_evaluations == 3  # two traced, one reported
    more = resume(tmp_path / "run", epochs=3, quiet=True)
    assert more.pflop == pytest.approx(3 * epoch, rel=1e-12)
    assert more.test_evaluations == 5  # the look at the first end counts on


def test_every_pass_of_a_step_counts(tmp_path: Path) -> None:
    one = tiny(**{**SMALL, "epochs": 1}, objective=Distil(paths=("branches=1",), whole=False))
    result = train(one, tmp_path / "run", quiet=True)
    assert result.pflop == pytest.approx(64 * 2 * (macs(one) + 3 * macs(one, "branches=1")) / 1e15, rel=1e-12)


def test_exits_that_run_as_one_count_what_they_share_once(tmp_path: Path) -> None:
    one = tiny(**{**SMALL, "epochs": 1}, objective=Exits(paths=("branches=1", "whole")))
    result = train(one, tmp_path / "run", quiet=True)
    shared = sum(macs_in_turn(one.model.build(0), ["branches=1", "whole"], 8))
    assert max(macs(one), macs(one, "branches=1")) < shared < macs(one) + macs(one, "branches=1")
    assert result.pflop == pytest.approx(64 * 3 * 2 * shared / 1e15, rel=1e-12)


def test_a_run_begun_before_passes_were_counted_says_none(tmp_path: Path) -> None:
    train(tiny(**SMALL, objective=Whole()), tmp_path / "run", quiet=True)
    checkpoints = RunFolder.open(tmp_path / "run").checkpoints
    last = checkpoints.load(checkpoints.steps()[-1])
    checkpoints.save(replace(last, state={key: value for key, value in last.state.items() if key != "flop"}))
    assert resume(tmp_path / "run", epochs=3, quiet=True).pflop is None


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": DropPath(rate=0.4), "accumulate": 2},
        {"objective": Sandwich(draw="uniform", draws=2, images=0.3), "data__train_images": 170},
        {"objective": Sandwich(draws=1, curriculum="cheapest-last"), "data__train_images": 161},
        {"objective": Exits(paths=("branches=1", "whole")), "path": "branches=1,2"},
    ],
)
def test_a_runs_pflop_are_known_before_it(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny(**{**SMALL, "data__train_images": 160, "batch_size": 32} | changes)
    expected = expected_pflop(recipe, recipe.data.train_images or 0, 8)
    assert train(recipe, tmp_path / "run", quiet=True).pflop == pytest.approx(expected, rel=1e-12)
    roughly = expected_pflop(recipe, recipe.data.train_images or 0, 8, every=3)
    assert roughly == pytest.approx(expected, rel=0.3)
    assert expected > 0


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="images = 31"):
        expected_pflop(tiny(), 31, 8)
