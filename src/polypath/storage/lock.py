"""Lock a folder for one writer. The system frees the lock when the writer's process ends, even after a crash.

    with FolderLock(folder):        # ValueError if another process, or other code of this process, has the lock
        ...

The lock is a POSIX record lock (``fcntl.lockf``) on the file ``.lock`` of the folder. Child processes do not inherit
the lock, so a data worker that outlives its parent does not keep it. Network file systems share the lock with other
machines. A killed writer leaves the file, but the file is not locked. The next writer removes the temporary files of
the killed writer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from polypath.storage.files import NAME_OF_LOCK, parse_json, sweep_out

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WITHOUT = "POLYPATH_NO_LOCK"
"""An environment variable. If it is ``1``, folders are written without a lock, for systems that have no locks."""

_TAKEN = {errno.EACCES, errno.EAGAIN}
_HELD: dict[tuple[int, int], int] = {}
"""Maps each locked folder (device, inode) to the id of the process that locked it. A fork inherits this table, but not
the locks."""


class Taken(ValueError):
    """Raised if another writer has locked the folder."""


class FolderLock:
    """A lock that gives the right to write into ``folder``, which must exist when the lock is taken.

    ``inside`` are subfolders in which temporary files of killed writers are removed as well.
    """

    def __init__(self, folder: str | os.PathLike[str], *inside: str) -> None:
        self.folder, self.inside = Path(folder), inside
        self._file: int | None = None
        self._key = (0, 0)

    def take(self) -> None:
        """Take the lock. If this object already has the lock, check that it is still valid.

        A record lock is lost as soon as its process closes *any* descriptor of the file. This happens if the process
        copies its run folder during training. The file can also be removed by hand. So a writer takes the lock again
        before important writes.

        Raises:
            Taken: another writer has the lock. The message contains its process id, if known.
            ValueError: the system has no locks.
            OSError: the folder cannot be written to.
        """
        if os.environ.get(WITHOUT) == "1":
            return
        if fcntl is None:
            raise ValueError(_no_locks(self.folder, "Python has no module fcntl here, as on Windows"))
        status, new = os.stat(self.folder), False
        key = status.st_dev, status.st_ino
        if self._file is None and _HELD.get(key) == os.getpid():  # before opening, since closing frees the lock
            raise Taken(f"{self.folder}: this process (id {os.getpid()}) is already writing into this folder")
        while self._file is None or not self._locked(self._file):
            self._close()
            self._file, new = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), True
        self._key, _HELD[key] = key, os.getpid()
        if new:
            _say(self._file, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
            for name in ("", *self.inside):
                sweep_out(self.folder / name)

    def release(self) -> None:
        """Free the lock, if this process has it. A fork of that process has no lock to free."""
        if self._file is not None and _HELD.get(self._key) == os.getpid():
            if self._is_ours(self._file):
                self._path.unlink(missing_ok=True)
            self._close()

    @property
    def _path(self) -> Path:
        return self.folder / NAME_OF_LOCK

    def _locked(self, file: int) -> bool:
        """Lock the open file. Return whether it is still in the folder: a writer removes the lock file at the end."""
        assert fcntl is not None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"{self.folder}: {_writer(file)} is writing into this folder; only one process can at a time"
            self._close()
            if error.errno in _TAKEN:
                raise Taken(text) from error
            raise ValueError(_no_locks(self.folder, error.strerror or str(error))) from error
        return self._is_ours(file)

    def _is_ours(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
            _HELD.pop(self._key, None)

    def __enter__(self) -> FolderLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _say(file: int, who: str) -> None:
    """Write the owner of the lock into the lock file, for the messages of other processes. Failures are ignored."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, who.encode(), 0)


def _writer(file: int) -> str:
    try:
        who = parse_json(os.pread(file, 1000, 0), NAME_OF_LOCK)
        process, host = int(who["process"]), str(who["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return f"process {process}" + ("" if host == socket.gethostname() else f" on {host}")


def _no_locks(folder: Path, reason: str) -> str:
    return (
        f"{folder}: cannot be locked ({reason}), so two processes could write into this folder; choose a folder "
        f"on another file system, or set {WITHOUT}=1 and make sure that only one process writes"
    )
