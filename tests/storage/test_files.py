from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from polypath.storage.files import new_folder, read_json, read_regular, write_file, write_json


def test_a_file_is_replaced_whole(tmp_path):
    write_file(tmp_path / "a.txt", "one")
    write_file(tmp_path / "a.txt", b"two")
    assert (tmp_path / "a.txt").read_bytes() == b"two"
    write_json(tmp_path / "b.json", {"x": [1]})
    assert json.loads((tmp_path / "b.json").read_text()) == {"x": [1]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.json"]


def test_no_space_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_file(tmp_path / "a.txt", "one")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_only_regular_files_are_read(tmp_path):
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"12345")
    os.mkfifo(pipe)
    assert (read_regular(file), read_regular(file, 2)) == (b"12345", b"12")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_regular(link) == b"12345"
    for other, kind in ((pipe, "a pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(OSError, match=f"must be a regular file, but is {kind}"):
            read_regular(other)
    with pytest.raises(ValueError, match="pipe: must be a regular file, but is a pipe"):
        read_json(pipe)


def test_a_json_file_has_a_largest_size(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("[1234]")
    assert read_json(file, 6) == [1234]
    with pytest.raises(ValueError, match=r"a\.json: has more than the 5 bytes allowed"):
        read_json(file, 5)


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_next_writer_sweeps_what_killed_ones_left_of_the_same_target(tmp_path, gone):
    alive = os.getppid()
    left = [f".{name}.{process}.tmp" for name in ("model", "other", "model.txt") for process in (gone, alive)]
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    with new_folder(tmp_path / "model") as made:
        (made / "whole").write_text("whole")
    write_file(tmp_path / "model.txt", "whole")
    kept = {f".model.{alive}.tmp", f".model.txt.{alive}.tmp", f".other.{gone}.tmp", f".other.{alive}.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.txt", *kept}


@pytest.mark.parametrize("there", [False, True])
def test_what_a_killed_writer_had_moved_away_comes_back_where_nothing_took_its_place(tmp_path, gone, there):
    (tmp_path / f".model.{gone}.old").mkdir()
    (tmp_path / f".model.{gone}.old" / "before").write_text("before")
    if there:
        (tmp_path / "model").mkdir()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "model"):
        raise RuntimeError("this one fails as well")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == (
        ["model"] if there else ["model", "model/before"]
    )
