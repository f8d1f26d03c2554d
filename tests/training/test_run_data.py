"""A run's images are found again, and other images are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from polypath import cli
from polypath.analysis.finished_run import FinishedRun
from polypath.data.config import DataConfig
from polypath.data.sources import load_images
from polypath.training.loop import resume, train
from polypath.training.recipe import Recipe
from polypath.training.run_data import recorded_data
from polypath.training.sweep import here, sweep
from training.tiny import NET, RECIPE

COLOURS = {"ant": 60, "bee": 120, "cow": 180}


def pictures(folder: Path, seed: int = 0, names: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """16 grey images of 8 x 8 pixels for each class."""
    draw = np.random.default_rng(seed)
    for name, level in zip(names, COLOURS.values(), strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(16):
            pixels = np.clip(draw.normal(level, 40, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


def recipe(**changes: Any) -> Recipe:
    data = DataConfig(source="images", validation=9, cache=False)
    return replace(RECIPE, model=replace(NET, num_classes=3), data=replace(data, **changes), epochs=1, batch_size=16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images`` and a finished run of them by their relative name, ``run``; copied by tests."""
    folder = tmp_path_factory.mktemp("trained")
    pictures(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(recipe(), "run", quiet=True)
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy whose run knows the copied images."""
    folder = Path(shutil.copytree(trained, tmp_path / "place"))
    file = folder / "run" / "data.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"resolved": str(folder / "images")}))
    return folder


def unfinished(run: Path) -> Path:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "model")
    return run


def command(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    status = cli.main([str(a) for a in argv])
    return status, capsys.readouterr().err


def test_a_run_records_its_images(trained: Path) -> None:
    known = recorded_data(trained / "run")
    assert known is not None
    assert (known.source, known.resolved) == ("images", str(trained / "images"))
    assert {name: part.images for name, part in known.identity.items()} == {f"train/{name}": 16 for name in COLOURS}


def test_a_run_is_scored_on_its_own_images_from_anywhere(place: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert FinishedRun(place / "run").data.classes == ("ant", "bee", "cow")
    pictures(Path("images"), seed=1, names=("xylophone", "yak", "zebra"))  # the recipe's source, from here
    assert FinishedRun(place / "run").data.classes == ("ant", "bee", "cow")
    assert resume(unfinished(place / "run"), quiet=True).test_images == 10


@pytest.mark.parametrize("name", ["resume", "paths", "report", "extract", "export"])
def test_every_command_refuses_other_images(name: str, place: Path, capsys, tmp_path: Path) -> None:
    run = unfinished(place / "run") if name == "resume" else place / "run"
    shutil.copy(place / "images/ant/00.png", place / "images/ant/zz.png")
    options = {
        "paths": ["--repeats", 1],
        "extract": ["--paths", "branches=1", "--recalibrate", "--out", tmp_path / "out"],
        "export": ["--out", tmp_path / "out"],
    }.get(name, [])
    status, said = command(capsys, name, run, *options)
    assert status == 2
    assert "not those that the run started with (train/ant has 17 images, not 16)" in said
    assert not (tmp_path / "out").exists()
    shutil.move(place / "images", place / "moved")
    status, said = command(capsys, name, run, *options)
    assert status == 2
    assert "(given as 'images'), but this folder is missing; give their folder with --data-moved DIR" in said
    status, said = command(capsys, name, run, *options, "--data-moved", place / "moved")
    assert status == 2
    assert "train/ant has 17 images, not 16" in said


def test_data_that_moved_are_read_and_remembered(place: Path, capsys) -> None:
    shutil.move(place / "images", place / "moved")
    status, said = command(capsys, "resume", unfinished(place / "run"), "--data-moved", place / "nowhere")
    assert (status, "nowhere: no such folder" in said) == (2, True)
    assert command(capsys, "resume", place / "run", "--data-moved", place / "moved")[0] == 0
    assert FinishedRun(place / "run").data.name == "moved"
    shutil.move(place / "moved", place / "third")
    with pytest.raises(ValueError, match="give their folder with --data-moved"):
        _ = FinishedRun(place / "run").data
    assert command(capsys, "resume", place / "run", "--data-moved", place / "third")[0] == 0  # it is finished by now
    assert len(FinishedRun(place / "run").data.train) == 29
    shutil.move(place / "third", place / "again")
    with pytest.raises(ValueError, match="give their folder with --data-moved"):
        _ = FinishedRun(place / "run").data
    assert len(FinishedRun(place / "run", data_moved=place / "again").data.train) == 29
    assert len(FinishedRun(place / "run").data.train) == 29


def test_images_that_are_no_folder_cannot_move(tmp_path: Path) -> None:
    train(replace(RECIPE, epochs=1), tmp_path / "run", quiet=True)
    known = recorded_data(tmp_path / "run")
    assert known is not None
    assert known.resolved is None
    with pytest.raises(ValueError, match=r"--data-moved .*: the images of .* are from 'digits', which is not a folder"):
        _ = FinishedRun(tmp_path / "run", data_moved=tmp_path).data


def test_images_that_are_given_are_checked_too(place: Path, tmp_path: Path) -> None:
    other = load_images(recipe(source=str(pictures(tmp_path / "other", seed=1))).data)
    with pytest.raises(ValueError, match="not those that the run started with"):
        FinishedRun(place / "run", data=other)
    with pytest.raises(ValueError, match="not those that the run started with"):
        resume(unfinished(place / "run"), data=other, quiet=True)


def test_a_run_without_a_record_is_known_by_its_checkpoints(place: Path, monkeypatch) -> None:
    """As Polypath 0.1 left it."""
    monkeypatch.chdir(place)
    (place / "run" / "data.json").unlink()
    assert len(FinishedRun(place / "run").data.train) == 29
    shutil.move(place / "images", place / "old")
    pictures(place / "images", seed=1)
    with pytest.raises(ValueError, match="the training images in images are not those that the run started with"):
        _ = FinishedRun(place / "run").data
    assert len(FinishedRun(place / "run", data_moved=place / "old").data.train) == 29
    assert recorded_data(place / "run") is not None


def test_streamed_runs_resume_when_their_files_have_other_times(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("polypath.data.folders.read_files.__defaults__", (0,))  # as if they were many bytes
    config = recipe(source=str(pictures(tmp_path / "images")), streaming=True, size=8, workers=0, channels=1)
    train(config, tmp_path / "run", quiet=True)
    shutil.copytree(tmp_path / "images", tmp_path / "copy", copy_function=shutil.copyfile)
    assert resume(unfinished(tmp_path / "run"), data_moved=tmp_path / "copy", quiet=True).test_images == 10


def test_rivals_of_the_same_relative_source_may_have_other_images(place: Path, tmp_path: Path, monkeypatch) -> None:
    pictures(tmp_path / "images", seed=1)
    monkeypatch.chdir(tmp_path)
    train(recipe(), "rival", quiet=True)
    mine, rival = FinishedRun(place / "run"), FinishedRun(tmp_path / "rival")
    assert mine.recipe.data == rival.recipe.data
    assert not mine.reads_as(rival)
    assert mine.reads_as(FinishedRun(place / "run"))


def test_a_sweep_continues_with_the_same_images_only(place: Path, tmp_path: Path, monkeypatch) -> None:
    def sweep_(seeds: int, **options: Any) -> int:
        return len(sweep(recipe(), range(seeds), out=place / "sweep", **options).results)

    monkeypatch.setattr("polypath.training.sweep.in_process_of_its_own", here)  # without starting processes
    monkeypatch.chdir(place)
    assert sweep_(1) == 1
    pictures(tmp_path / "images", seed=1)
    monkeypatch.chdir(tmp_path)
    assert sweep_(2) == 2  # the first run's images, though there are others of that name here
    shutil.move(place / "images", place / "moved")
    assert sweep_(2) == 2  # all are finished
    with pytest.raises(
        ValueError, match=r"seed=0: the images were in .*, but this folder is missing; .* --data-moved DIR"
    ):
        sweep_(3)
    with pytest.raises(ValueError, match=r"seed=0: the images in .* are not those"):
        sweep_(3, data_moved=tmp_path / "images")
    assert sweep_(3, data_moved=place / "moved") == 3
    shutil.move(place / "moved", place / "again")
    assert sweep_(3, data_moved=place / "again") == 3
    assert len(FinishedRun(place / "sweep" / "seed=1").data.train) == 29
