"""The benchmark that projects whole recipes on an accelerator, run on the processor in a tiny form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_epochs

from polypath.training.recipe import replace
from polypath.training.recipes import get_recipe

CPU = torch.device("cpu")
TINY = {
    "gunn15-cifar10": {"model.channels": (4, 4, 4), "model.segments": (1, 1, 1), "model.stem_width": 4},
    "dfn_mr56-cifar10": {"model.depth": 8},
    "crescendonet_128-cifar10": {"model.widths": (2, 2, 2), "model.hidden": (4,)},
}


@pytest.mark.parametrize("name", gpu_epochs.RECIPES)
def test_epochs_are_timed_and_the_whole_recipe_projected(name: str) -> None:
    recipe = replace(get_recipe(name), {**TINY[name], "batch_size": 8})
    data = gpu_epochs.random_images(10, training=2 * recipe.batch_size + 4, test=4)
    row = gpu_epochs.measure(recipe, data, CPU, epochs=3)
    assert (row["recipe"], row["batch_size"], row["epochs"]) == (name, recipe.batch_size, recipe.epochs)
    assert (row["images"], row["steps_per_epoch"], row["test_images"]) == (2 * recipe.batch_size + 4, 3, 4)
    assert len(row["warmup_epoch_s"]) == 1
    assert row["median_epoch_s"] == sorted(row["epoch_s"])[1]
    hours = (row["median_epoch_s"] * recipe.epochs + row["test_scoring_s"]) / 3600
    assert row["projected_hours"] == pytest.approx(hours)
    assert 0.0 < row["last_loss"] < 20.0


def test_rows_of_other_settings_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"batch_size": 64, "precision": "bf16", "compile": False, "deterministic": True}
    for recipe, device, seconds in (("a", "H100", 1.0), ("b", "H100", 2.0), ("a", "A100", 3.0), ("a", "H100", 4.0)):
        row = {"recipe": recipe, "median_epoch_s": seconds, **settings}
        gpu_epochs._keep(tmp_path / "new" / "r.json", row, {"device_name": device})
    rows = json.loads((tmp_path / "new" / "r.json").read_text())["rows"]
    assert [row["median_epoch_s"] for row in rows] == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda:77"], "device = 'cuda:77': not on this machine"),
        (["no-such-recipe", "--device", "cpu"], "unknown recipe 'no-such-recipe'"),
        (["--device", "cpu", "--epochs", "0"], "--epochs 0"),
        (["--device", "cpu", "--precision", "fp8"], "precision = 'fp8'"),
    ],
)
def test_bad_input(arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_epochs.main([*arguments, "--out", str(tmp_path / "r.json")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
