"""Looks at test images are counted for every command, in any state of the folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from locked import fork, held, status_of
from polypath.storage import looks as module
from polypath.storage.looks import add_looks, looks


def test_looks_add_up_by_what_made_them(tmp_path: Path) -> None:
    assert looks(tmp_path) == {}
    add_looks(tmp_path, "paths", 3)
    add_looks(tmp_path, "report", 5)
    with held(tmp_path):  # another process writes into the run
        add_looks(tmp_path, "paths", 4)
    add_looks(tmp_path, "paths", 0)
    assert looks(tmp_path) == {"paths": 7, "report": 5}
    assert [file.name for file in (tmp_path / "looks").iterdir()] == [module.FILE]  # the lock is free


def test_processes_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    def count() -> None:
        for _ in range(10):
            add_looks(tmp_path, "paths", 1)

    children = [fork(count) for _ in range(3)]
    assert [status_of(pid) for pid in children] == [0, 0, 0]
    assert looks(tmp_path) == {"paths": 30}


def test_another_counting_process_is_waited_for_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    (tmp_path / "looks").mkdir()
    with held(tmp_path / "looks"), pytest.raises(ValueError, match="is writing into this folder"):
        add_looks(tmp_path, "paths", 1)
    assert looks(tmp_path) == {}


def test_a_folder_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "write_json", full)
    with caplog.at_level(logging.WARNING):
        add_looks(tmp_path, "paths", 2)
    assert "2 looks at test images could not be counted (Read-only file system)" in caplog.text


@pytest.mark.parametrize("text", ["[]", '{"paths": "many"}', "{"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "looks" / module.FILE
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError, match=module.FILE):
        add_looks(tmp_path, "paths", 1)
    assert file.read_text() == text
    file.write_text(json.dumps({"paths": 2}))
    assert looks(tmp_path) == {"paths": 2}
