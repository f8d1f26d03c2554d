"""A folder of pictures to a bundle that answers: one command each, no option but the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import own_pictures

from polypath import cli
from polypath.data.config import DataConfig
from polypath.data.sources import look
from polypath.deploy.bundle import Bundle


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four classes of shapes as cameras and drawing programs save them, small and few."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_pictures, "SIZES", ((40, 36), (36, 44), (50, 40)))
    folder = own_pictures.folders(0.09)["shapes"]
    return own_pictures.made(tmp_path / "pictures", folder, 0)


def test_the_pictures_are_of_all_kinds_and_the_same_again(pictures: Path, tmp_path: Path) -> None:
    files = sorted(pictures.rglob("*.*"))
    assert {file.suffix for file in files} == {".jpg", ".png", ".webp", ".bmp"}
    facts = look(DataConfig(source=str(pictures)))
    assert dict(facts.classes) == dict.fromkeys(("circle", "square", "star", "triangle"), 14)
    assert (facts.side, facts.alike, facts.grey) == (36, False, False) or facts.side == 40
    again = own_pictures.made(tmp_path / "again" / "pictures", own_pictures.folders(0.09)["shapes"], 0)
    assert [file.read_bytes() for file in sorted(again.rglob("*.*"))] == [file.read_bytes() for file in files]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_commands_without_an_option(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    run = Path("runs/my-images")
    own_pictures.made(tmp_path / "more", own_pictures.folders(0.4)["shapes"], 0)
    assert cli.main(["train", "my-images", "--data.source", "more"]) == 0
    said = capsys.readouterr().err
    assert "init = pretrained: " in said
    assert "data.size = 32: the shorter side of an image" in said
    found = json.loads((run / "summary.json").read_text())
    assert found["reported"] == "best"
    assert found["test_error"] < 55  # of 48 images; guessing has 75
    assert cli.main(["paths", str(run)]) == 0
    assert cli.main(["report", str(run)]) == 0
    assert cli.main(["export", str(run)]) == 0
    assert Bundle.open("my-images-bundle").classes == ("circle", "square", "star", "triangle")
    photo = next((pictures / "star").iterdir())
    capsys.readouterr()
    assert cli.main(["predict", "my-images-bundle", str(photo)]) == 0
    assert "star" in capsys.readouterr().out


def test_where_the_pictures_are_has_to_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "my-images", "--out", str(tmp_path / "run")]) == 2
    assert "my-images: say where your images are, --data.source DIR" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_fields_that_are_open_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "my-images"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "a look at the images settles it" in rows["data.size"]
    assert "a look at the images settles it" in rows["data.augment.mirror"]
    assert "a look" not in rows["optim.momentum"]


def test_several_sources_need_a_folder_for_their_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "--out: name the folder of a bundle of several sources" in capsys.readouterr().err
