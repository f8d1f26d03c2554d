"""``polypath report``: the page of a run, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from test_cli import IMAGES, refused, run

from locked import held, status_of
from polypath.storage.looks import looks
from polypath.training.run import DERIVED

TINY = ["--model.filters", "4", "4", *IMAGES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    from polypath import cli

    folder = tmp_path_factory.mktemp("report") / "small"
    assert cli.main(["train", "fractalnet-digits", *TINY, "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "small")


def test_the_page_of_a_run(folder, capsys):
    status, out, _ = run(capsys, "report", folder, "--images", "60")
    assert status == 0
    assert "wrote" in out
    text = (folder / "report.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "summary.json").read_text())
    assert f"{summary['test_error']:.2f}%" in text
    assert f"{summary['parameters']:,}" in text
    for part in (
        "wiring",
        "paths",
        "training",
        "classes",
        "calibration",
        "agreement",
        "importance",
        "galleries",
        "run",
    ):
        assert f'id="{part}"' in text
    assert "Where paths look" in text
    assert "the run has no paths.json" in text
    made = looks(folder)["report"]
    assert made > 2 * 4  # all paths in the table, and again for their calibration
    assert f"<dt>test evaluations</dt><dd>{made + 1}</dd>" in text
    assert not (folder / "paths.json").exists()
    assert not list(folder.glob(".*tmp"))


def test_an_existing_path_table_is_what_it_shows(folder, capsys, tmp_path):
    assert run(capsys, "paths", folder, "--recalibrate", "--num-images", "64", "--repeats", "2")[0] == 0
    table = json.loads((folder / "paths.json").read_text())
    table["rows"][1]["error"] = 12.3456
    (folder / "paths.json").write_text(json.dumps(table))
    status, out, _ = run(capsys, "report", folder, "--images", "60", "--out", tmp_path / "page.html", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["paths"] == [row["name"] for row in table["rows"]]
    assert any("recalibrated on 64 images" in note for note in facts["notes"])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert facts["bytes"] == len(text.encode())
    assert 'data-value="12.3456"' in text
    assert not (folder / "report.html").exists()


def test_one_writer_a_run(folder, capsys, tmp_path):
    before = {file.name for file in folder.iterdir()}
    with held(folder) as (pid, leave):
        for command in (["resume"], ["resume", "--epochs", "9"], ["paths"], ["report"]):
            said = refused(capsys, command[0], folder, *command[1:])
            assert f"{folder}: process {pid} is writing into this folder; only one process can at a time" in said
        status, _, _ = run(capsys, "report", folder, "--images", "60", "--out", tmp_path / "page.html")
        assert status == 0  # it only counts its looks in the run
        os.write(leave, b".")
        assert status_of(pid) == 0
    assert {file.name for file in folder.iterdir()} == {*before, "looks"}


def test_files_written_into_a_run_are_known_to_it(folder, capsys):
    before = {file.name for file in folder.iterdir()}
    assert run(capsys, "paths", folder, "--recalibrate", "--num-images", "64", "--repeats", "2")[0] == 0
    assert run(capsys, "report", folder, "--images", "60")[0] == 0
    searched = {"search.json", "search.parts"}  # tests/cli/test_cli_search.py
    assert {file.name for file in folder.iterdir()} - before == {*DERIVED, "looks"} - searched


def test_what_is_no_finished_run_is_refused(folder, capsys, tmp_path):
    assert "no such run folder" in refused(capsys, "report", tmp_path / "nothing")
    assert "not a run folder, since it has no recipe.json" in refused(capsys, "report", tmp_path)
    (folder / "summary.json").unlink()
    assert "continue it with `polypath resume" in refused(capsys, "report", folder)
    shutil.rmtree(folder / "model")
    assert "continue it with `polypath resume" in refused(capsys, "report", folder)
    assert not (folder / "report.html").exists()


def test_places_that_cannot_be_written_are_refused_before_the_work(folder, capsys, tmp_path):
    assert "is a folder" in refused(capsys, "report", folder, "--out", tmp_path)
    assert "there is no folder" in refused(capsys, "report", folder, "--out", tmp_path / "a" / "page.html")
    if Path("/proc/self").exists():
        assert "cannot be written" in refused(capsys, "report", folder, "--out", "/proc/page.html")


def test_a_path_table_that_does_not_fit_is_refused(folder, capsys):
    (folder / "paths.json").write_text("{")
    assert "polypath paths" in refused(capsys, "report", folder)
    row = {"name": "b", "paths": "block9.join=1", "error": 1, "params": 1, "macs": 1, "activation_bytes": 1, "depth": 1}
    table = {"run": "x", "rows": [row], "rivals": {}, "data": "d", "images": 1, "measured": {}}
    (folder / "paths.json").write_text(json.dumps(table))
    assert "belongs to another network" in refused(capsys, "report", folder)
    assert not (folder / "report.html").exists()
