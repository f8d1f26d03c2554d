"""Processes that hold the lock of a folder, forked from the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polypath.storage.lock import FolderLock


def fork(act: Callable[[], object]) -> int:
    """Do it in a child; its id. Its status is 0, 1 after an exception, or what it left with."""
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
    """Another process has the lock of ``folder``: its id, and a pipe at whose end it and its worker leave."""
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
