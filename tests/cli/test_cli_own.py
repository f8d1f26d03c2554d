"""From a folder of pictures to a bundle that answers: one command per step, with the folder as the only option."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import own_pictures
from PIL import Image

from conftest import ROOT, child_environment
from polypath import cli
from polypath.data.config import DataConfig
from polypath.data.sources import look
from polypath.deploy.bundle import Bundle


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four classes of shapes in the formats of cameras and drawing programs, few and small."""
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
def test_from_pictures_to_answers_without_an_option(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnxruntime", "fastapi", "uvicorn"):
        pytest.importorskip(package)
    _, train, export, serve, ask = commands("README.md")
    run = Path("runs/my-images")
    own_pictures.made(tmp_path / "PICTURES", own_pictures.folders(0.4)["shapes"], 0)
    assert cli.main(train[1:]) == 0
    said = capsys.readouterr().err
    assert "init = pretrained: " in said
    assert "data.size = 32: the shorter side of an image" in said
    found = json.loads((run / "summary.json").read_text())
    assert found["reported"] == "best"
    assert found["test_error"] < 55  # of 48 images; guessing has 75
    assert cli.main(["paths", str(run)]) == 0
    assert cli.main(["report", str(run)]) == 0
    assert cli.main(export[1:]) == 0
    assert Bundle.open("my-images-bundle").classes == ("circle", "square", "star", "triangle")
    photo = next((pictures / "star").iterdir())
    capsys.readouterr()
    assert cli.main(["predict", "my-images-bundle", str(photo)]) == 0
    assert "star" in capsys.readouterr().out
    Image.open(photo).convert("RGB").save("photo.jpg")
    with serving(serve) as port:
        asked = [word.replace(":8000/", f":{port}/") for word in ask]
        found = subprocess.run([*asked, "--silent", "--show-error", "--fail"], capture_output=True, check=True)
        answer = json.loads(found.stdout)["top"]
        assert {one["class"] for one in answer} == {"circle", "square", "star", "triangle"}


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """The service that ``command`` starts, on a free port; yields the port once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", *command, "--port", str(port)]
    with subprocess.Popen(argv, env=child_environment(), stderr=subprocess.DEVNULL) as service:
        try:
            until = time.monotonic() + 300
            while not ready(port):
                assert service.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            yield port
        finally:
            service.terminate()
    assert service.returncode == 0


def ready(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def commands(page: str) -> list[list[str]]:
    """The words of the page's commands in the block that begins with an installation."""
    block = re.search(r"^    pip install .*\n(?:    .+\n)+", (ROOT / page).read_text(encoding="utf-8"), re.M)
    assert block is not None
    return [shlex.split(line) for line in block[0].splitlines()]


def test_the_pages_have_the_same_five_commands() -> None:
    found = commands("README.md")
    assert found == commands("docs/my_images.md")
    assert [words[:2] for words in found[1:4]] == [["polypath", name] for name in ("train", "export", "serve")]
    assert len(found) <= 5
    (extras,) = re.findall(r"\[(.*)\]", found[0][-1])
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    assert f"'.[{extras}]'" in (ROOT / "examples/Dockerfile").read_text()  # whose test installs them


def test_the_folder_of_the_pictures_is_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "my-images", "--out", str(tmp_path / "run")]) == 2
    assert "my-images: give the folder of your images with --data.source DIR" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_open_fields_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "my-images"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "chosen from the images" in rows["data.size"]
    assert "chosen from the images" in rows["data.augment.mirror"]
    assert "a look" not in rows["optim.momentum"]


def test_several_sources_need_a_folder_for_their_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "--out: is required with several sources" in capsys.readouterr().err
