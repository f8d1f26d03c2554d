"""A recipe's ``path``: the run trains the extracted path as a separate network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import equal, left, tiny

import polypath as pp
from polypath.analysis.finished_run import FinishedRun
from polypath.cli import main
from polypath.training.build import build_net
from polypath.training.loop import resume, train
from polypath.training.objectives import Whole
from polypath.training.recipe import recipe_from_json, recipe_to_json

SMALL = {"epochs": 2, "data__train_images": 64, "model__scale": 2, "objective": Whole()}


def test_the_network_is_the_extracted_path() -> None:
    recipe = tiny(**SMALL, path="branches=1")
    net, parent = build_net(recipe), recipe.model.build(recipe.seed)
    assert equal(net.state_dict(), pp.extract(parent, "branches=1").state_dict())
    assert len(net.state_dict()) < len(parent.state_dict())
    assert equal(build_net(tiny(**SMALL)).state_dict(), parent.state_dict())
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    before = {key: value for key, value in recipe_to_json(recipe).items() if key != "path"}
    assert recipe_from_json(before).path == "whole"  # a run of 0.1


def test_a_run_of_a_path_resumes_to_the_bit_and_is_saved_as_that_path(tmp_path: Path) -> None:
    recipe = tiny(**SMALL, path="branches=1")
    result = train(recipe, tmp_path / "calm", quiet=True)
    train(tiny(**{**SMALL, "epochs": 1}, path="branches=1"), tmp_path / "stopped", quiet=True)
    again = resume(tmp_path / "stopped", epochs=2, quiet=True)
    (a, _), (b, _) = left(tmp_path / "calm"), left(tmp_path / "stopped")
    assert equal(a.tensors, b.tensors)
    assert (again.test_loss, again.parameters) == (result.test_loss, result.parameters)
    saved = FinishedRun(tmp_path / "calm").net
    assert saved.config.get("paths") == str(recipe.model.build(0).paths("branches=1"))
    x = torch.zeros(2, 1, 8, 8)
    assert torch.equal(saved(x), pp.load(tmp_path / "calm" / "model")(x))
    assert result.parameters == sum(p.numel() for p in saved.parameters())


def test_a_path_of_a_saved_network_is_trained_on(tmp_path: Path) -> None:
    train(tiny(**{**SMALL, "epochs": 1}), tmp_path / "first", quiet=True)
    recipe = tiny(**{**SMALL, "epochs": 1}, path="branches=1", init=str(tmp_path / "first"))
    train(recipe, tmp_path / "second", quiet=True)
    begun = pp.extract(pp.load(tmp_path / "first" / "model"), "branches=1")
    (tmp_path / "first").rename(tmp_path / "gone")
    assert equal(build_net(recipe, tmp_path / "second").state_dict(), begun.state_dict())  # its own copy, cut once
    assert resume(tmp_path / "second", epochs=2, quiet=True).epoch in (1, 2)


def test_an_unknown_path_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "crescendonet-digits", "--path", "branches=7", "--out", str(tmp_path / "run")]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "branches" in said
    assert "7" in said
    assert not (tmp_path / "run").exists()
