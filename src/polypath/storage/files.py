"""Write files and folders atomically: each gets a temporary name in the same folder and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEPEST = 100  # how deep tables and lists may be nested
LARGEST = 2**26  # bytes of a JSON file
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)
SUFFIX = ".tmp"
"""The ending of temporary names. A killed process may leave ``.NAME.PROCESS.tmp``."""
NAME_OF_LOCK = ".lock"
"""The name of the file that a writer locks (:mod:`polypath.storage.lock`)."""
_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>tmp|old)")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Provide the path of a temporary file, which is renamed to ``path`` if the block ends without an error.

    Raises:
        OSError: there is no space or no permission. Then ``path`` is unchanged.
    """
    _sweep_beside(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_file(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``. Readers see the old file or the new one, never a part.

    Raises:
        OSError: there is no space or no permission. Then ``path`` is unchanged.
    """
    with whole(Path(path)) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON document to ``path``, as :func:`write_file` does."""
    write_file(path, json.dumps(value, indent=2) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, if the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems do not support it
        pass
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Provide a folder beside ``target`` that replaces ``target`` if the block ends without an error. Otherwise the new
    folder is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_beside(target)
    made, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    for left_over in (made, old):
        shutil.rmtree(left_over, ignore_errors=True)
    made.mkdir()
    try:
        yield made
        sync_folder(made)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(made, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def contents(folder: Path) -> list[Path]:
    """List the contents of a folder, without a writer's lock and the temporary files of killed writers."""
    return [path for path in folder.iterdir() if path.name != NAME_OF_LOCK and path.suffix != SUFFIX]


def check_own(folder: Path, marker: str, what: str) -> None:
    """Raise ``ValueError`` unless ``folder`` is missing, empty, or contains the file ``marker``. ``what`` is the kind
    of folder that contains this file, for the message."""
    if folder.exists() and (not folder.is_dir() or contents(folder)) and not (folder / marker).is_file():
        raise ValueError(f"{folder} exists and is not a {what}: choose another --out")


def check_vacant(target: Path, what: str = "") -> None:
    """Raise ``ValueError`` unless ``target`` is missing or an empty folder. The message begins with ``what``."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{what}{target}: exists and is not empty; choose another folder")


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """Read the first ``most`` bytes of a regular file, or all if ``most`` is negative. Never wait for a pipe or device.

    Raises:
        OSError: the file is missing or not readable, or is a pipe, a device, a socket or a folder. ``strerror`` gives
            the reason.
    """
    check_regular(path, os.stat(path).st_mode)  # before opening, since opening a device may have side effects
    with open(path, "rb", opener=_at_once) as stream:
        check_regular(path, os.fstat(stream.fileno()).st_mode)
        return stream.read(most)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(path: str | os.PathLike[str], mode: int) -> None:
    """Raise ``OSError`` unless ``mode`` (from ``os.stat``) is the mode of a regular file."""
    if stat.S_ISREG(mode):
        return
    kind = next((name for fits, name in _KINDS if fits(mode)), "of another kind")
    raise OSError(errno.EINVAL, f"must be a regular file, but is {kind}", os.fspath(path))


def read_json(path: Path, most: int = LARGEST) -> Any:
    """Read the JSON value in a file of at most ``most`` bytes.

    Raises:
        ValueError: the file is missing, unreadable, larger, or not JSON. The message contains the path.
    """
    try:
        data = read_regular(path, most + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if len(data) > most:
        raise ValueError(f"{path}: has more than the {most:,} bytes allowed, so it may be damaged")
    return parse_json(data, str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse a text as JSON. NaN and infinity are allowed.

    Raises:
        ValueError: the text is not JSON, values are nested more than ``DEEPEST`` times, or a key occurs twice in a
            table (JSON readers differ in which value they use). The message starts with ``where``.
    """
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_table)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: is damaged or not JSON ({error})") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return table


def _check_depth(value: Any) -> None:
    """Reject deep nesting, since writing, comparing and showing a value all use the interpreter's stack."""
    level = [[value]]
    for _ in range(DEEPEST + 1):
        parts = (part for table in level for part in (table.values() if isinstance(table, dict) else table))
        if not (level := [part for part in parts if isinstance(part, dict | list)]):
            return
    raise ValueError(f"values are nested more than {DEEPEST} times")


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_out(folder: Path) -> None:
    """Remove the temporary files of killed processes from ``folder``. No other process may be writing there.

    If :func:`new_folder` moved a folder aside but did not finish its replacement, the folder is moved back.
    """
    for path in folder.glob(f".*{SUFFIX}"):
        remove(path)
    for path in folder.glob(".*.old"):
        if match := _LEFT.fullmatch(path.name):
            _settle(path, folder / match["name"])


def _sweep_beside(target: Path) -> None:
    """Remove temporary files as :func:`sweep_out` does, but only files for ``target`` of processes that have ended. The
    folder is not locked, so other processes may be writing there."""
    try:
        names = os.listdir(target.parent)
    except OSError:
        return  # writing will raise the error
    for name in names:
        match = _LEFT.fullmatch(name)
        if match and match["name"] == target.name and not _runs(int(match["process"])):
            with contextlib.suppress(OSError):  # it belongs to another user, or another writer has just removed it
                _settle(target.parent / name, target)


def _settle(left: Path, target: Path) -> None:
    if left.suffix == SUFFIX or target.exists():
        remove(left)
    else:
        os.replace(left, target)


def _runs(process: int) -> bool:
    """Return whether a process of this machine is running. If this is unknown, return True."""
    if sys.platform == "win32":  # where os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
