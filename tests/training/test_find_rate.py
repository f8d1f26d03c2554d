"""The learning rate from a sweep: repeatable, near a rate that trains, and logged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny import images, tiny

from polypath.cli import main
from polypath.training.find_rate import HIGH, LOW, STEPS, find_rate, with_found_rate
from polypath.training.objectives import Whole
from polypath.training.run import RunFolder


def test_a_sweep_rises_until_the_loss_does_and_is_the_same_again(caplog) -> None:
    recipe, before = tiny(objective=Whole(), model__dropout=0.0), torch.random.get_rng_state()
    found = find_rate(recipe, images())
    assert found == find_rate(recipe, images())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.rates[0] == LOW
    assert 20 < len(found.rates) == len(found.losses) <= STEPS
    assert all(a < b <= HIGH * 1.001 for a, b in zip(found.rates, found.rates[1:], strict=False))
    least = found.rates[found.losses.index(min(found.losses))]
    assert found.rate == pytest.approx(least / 10, rel=0.1)
    assert 1e-4 < found.rate < 0.3
    with caplog.at_level(logging.INFO, "polypath"):
        changed = with_found_rate(recipe, images())
    assert changed.optim.lr == found.rate
    assert changed.assumed["optim.lr"].startswith("a tenth of the rate with the lowest loss, in a sweep of ")
    assert f"optim.lr = {found.rate}: a tenth" in caplog.text


def test_a_rate_for_another_batch_is_found_in_its_own_terms() -> None:
    plain = find_rate(tiny(objective=Whole()), images())
    scaled = find_rate(tiny(objective=Whole(), optim__scaling="linear", optim__per_images=8), images())
    assert scaled.rate == pytest.approx(plain.rate / 4, rel=0.1)


def test_it_is_an_option_of_train(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("polypath.training.find_rate.STEPS", 12)
    some = ["--model.widths", "4", "4", "--model.hidden", "8", "--epochs", "1", "--device", "cpu", "--data.no-cache"]
    command = ["train", "crescendonet-digits", *some, "--out", str(tmp_path / "run"), "--find-lr"]
    assert main(command) == 0
    recipe = RunFolder.open(tmp_path / "run").recipe
    assert f"optim.lr = {recipe.optim.lr}: a tenth of the rate" in capsys.readouterr().err
    assert main(command) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert main([*command[:-3], "--out", str(tmp_path / "other"), "--find-lr", "--optim.lr", "0.1"]) == 2
    assert "--find-lr and --optim.lr: give only one of them" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
