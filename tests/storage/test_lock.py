"""One writer per folder: refused while another has the lock, free when it ends, however it ends."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from locked import fork, held, status_of
from polypath.storage import lock
from polypath.storage.lock import FolderLock


def assert_locked(folder: Path) -> None:
    def attempt() -> None:
        with pytest.raises(ValueError, match=f"process {os.getppid()} is writing into this folder"):
            FolderLock(folder).take()

    assert status_of(fork(attempt)) == 0


def test_another_process_is_refused_by_its_id_until_it_ends(tmp_path: Path) -> None:
    with held(tmp_path) as (pid, leave):
        with pytest.raises(ValueError, match=f"process {pid} is writing into this folder"):
            FolderLock(tmp_path).take()
        os.write(leave, b".")
        assert status_of(pid) == 0
        with FolderLock(tmp_path):
            assert_locked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_holds_nothing_though_its_worker_lives(tmp_path: Path) -> None:
    with held(tmp_path, worker=True) as (pid, _):
        with pytest.raises(ValueError, match=f"process {pid} "):
            FolderLock(tmp_path).take()
        os.kill(pid, signal.SIGKILL)
        assert status_of(pid) == -signal.SIGKILL
        assert (tmp_path / ".lock").exists()
        with FolderLock(tmp_path):
            assert_locked(tmp_path)


def test_the_same_process_is_refused_and_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with FolderLock(tmp_path / "run"):
        with pytest.raises(ValueError, match=r"this process \(id \d+\) is already writing into this folder"):
            FolderLock(tmp_path / "link").take()
        assert_locked(tmp_path / "run")
    with FolderLock(tmp_path / "link"):
        assert_locked(tmp_path / "link")


def test_a_lock_that_was_lost_is_taken_again_or_refused(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as mine:
        (tmp_path / ".lock").read_bytes()  # a descriptor of it is closed
        mine.take()
        assert_locked(tmp_path)
        (tmp_path / ".lock").unlink()
        mine.take()
        assert_locked(tmp_path)
        (tmp_path / ".lock").read_bytes()
        with held(tmp_path) as (pid, leave):
            with pytest.raises(ValueError, match=f"process {pid} is writing"):
                mine.take()
            mine.release()  # which is not the other's
            with pytest.raises(ValueError, match=f"process {pid} is writing"):
                FolderLock(tmp_path).take()
            os.write(leave, b".")
            assert status_of(pid) == 0


def test_a_fork_neither_has_nor_frees_the_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as mine:
        assert status_of(fork(mine.release)) == 0
        assert_locked(tmp_path)


def test_systems_without_locks_are_refused_with_a_way_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.lockf", refuse)
        with pytest.raises(ValueError, match=r"cannot be locked \(No locks available\).*POLYPATH_NO_LOCK=1"):
            FolderLock(tmp_path).take()
        patch.setenv("POLYPATH_NO_LOCK", "1")
        with FolderLock(tmp_path):
            pass
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(ValueError, match="no module fcntl here, as on Windows"):
        FolderLock(tmp_path).take()


def test_what_killed_writers_left_is_removed_or_put_back(tmp_path: Path) -> None:
    for name in ("inside", ".model.12.tmp", ".model.12.old", "init", ".init.12.old"):  # init has its successor
        (tmp_path / name).mkdir()
    for name in (".a.json.12.tmp", "inside/.b.safetensors.12.tmp", ".model.12.old/weights", ".mine.tmp.txt", ".my.old"):
        (tmp_path / name).write_text("x")
    with FolderLock(tmp_path, "inside", "not there"):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {".lock"}
    assert found == {"inside", ".mine.tmp.txt", ".my.old", "model", "model/weights", "init"}
