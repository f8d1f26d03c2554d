"""Processes that hold the lock of a folder, forked from the test process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polypath.storage.lock import FolderLock


def fork(act: Callable[[], object]) -> int:
    """Call ``act`` in a child process; returns its id. Its status is 0, 1 after an exception, or its exit status."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        act()
        status = 0
    except SystemExit as leave:
        status = int(leave.code or 0)
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def held(folder: Path, *, worker: bool = False) -> Iterator[tuple[int, int]]:
    """Another process holds the lock of ``folder``; yields its id and a pipe. It and its worker exit when the pipe is
    closed."""
    (told, tell), (wait, leave) = os.pipe(), os.pipe()

    def hold() -> None:
        os.close(leave)
        with FolderLock(folder):
            if worker:
                fork(lambda: os.read(wait, 1))
            os.write(tell, b".")
            os.read(wait, 1)

    pid = fork(hold)
    assert os.read(told, 1) == b"."
    try:
        yield pid, leave
    finally:
        for end in (told, tell, wait, leave):
            os.close(end)
