"""Atomic writes of files and folders: written beside their place, flushed, renamed."""

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

DEEPEST = 100  # nested tables and lists
LARGEST = 2**26  # bytes of a JSON file
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)
SUFFIX = ".tmp"
"""The ending of temporary names; a killed process may leave ``.NAME.PROCESS.tmp``."""
NAME_OF_LOCK = ".lock"
"""The name of the file that a writer locks (:mod:`polypath.storage.lock`)."""
_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>tmp|old)")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes ``path`` when the block ends without an error.

    Raises:
        OSError: no space, no permission; ``path`` is unchanged then.
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
    """Put ``data`` (text as UTF-8) at ``path``; readers see the old file or the new one, never a part.

    Raises:
        OSError: no space, no permission; ``path`` is unchanged then.
    """
    with whole(Path(path)) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Put a JSON document at ``path``, as :func:`write_file` does."""
    write_file(path, json.dumps(value, indent=2) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, if the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that replaces it when the block ends without an error, and is removed otherwise."""
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
    """The contents of a folder, except a writer's lock and the temporary files of killed writers."""
    return [path for path in folder.iterdir() if path.name != NAME_OF_LOCK and path.suffix != SUFFIX]


def check_own(folder: Path, marker: str, what: str) -> None:
    """Raise ``ValueError`` unless ``folder`` is missing, empty, or a ``what``, which has the file ``marker``."""
    if folder.exists() and (not folder.is_dir() or contents(folder)) and not (folder / marker).is_file():
        raise ValueError(f"{folder} exists and is no {what}: choose another --out")


def check_vacant(target: Path, what: str = "") -> None:
    """Raise ``ValueError`` unless ``target`` does not exist or is an empty folder; ``what`` is put before its name."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{what}{target}: exists and is not empty; choose another folder")


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of a regular file, the first ``most`` of them (all below 0); other files are refused at once.

    Raises:
        OSError: no such file, no permission, or a pipe, a device, a socket, a folder; its ``strerror`` says which.
    """
    check_regular(path, os.stat(path).st_mode)  # opening some devices makes them act
    with open(path, "rb", opener=_at_once) as stream:
        check_regular(path, os.fstat(stream.fileno()).st_mode)
        return stream.read(most)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(path: str | os.PathLike[str], mode: int) -> None:
    """Raise ``OSError`` unless ``mode``, from ``os.stat``, is that of a regular file."""
    if stat.S_ISREG(mode):
        return
    kind = next((name for fits, name in _KINDS if fits(mode)), "no file")
    raise OSError(errno.EINVAL, f"{kind}, where a regular file must be", os.fspath(path))


def read_json(path: Path, most: int = LARGEST) -> Any:
    """The JSON value in a file of at most ``most`` bytes.

    Raises:
        ValueError: a file that is missing, unreadable, larger or not JSON; the message names it.
    """
    try:
        data = read_regular(path, most + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if len(data) > most:
        raise ValueError(f"{path}: damaged, it has more than {most:,} bytes")
    return parse_json(data, str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The JSON value of a text; NaN and infinity are allowed.

    Raises:
        ValueError: not JSON, values nested more than ``DEEPEST`` times, or a key that occurs twice in a table (readers
            differ in which one they take); the message starts with ``where``.
    """
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_table)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: damaged, or not JSON ({error})") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return table


def _check_depth(value: Any) -> None:
    """Refuse deep nesting: writing, comparing and showing a value all use the interpreter's stack."""
    level = [[value]]
    for _ in range(DEEPEST + 1):
        parts = (part for table in level for part in (table.values() if isinstance(table, dict) else table))
        if not (level := [part for part in parts if isinstance(part, dict | list)]):
            return
    raise ValueError(f"nested more than {DEEPEST} times")


def remove(path: Path) -> None:
    """Remove a file, or a folder in its place; does nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_out(folder: Path) -> None:
    """Remove the temporary files of killed processes from ``folder``; no other process may be writing there.

    A folder that :func:`new_folder` moved aside is moved back if its replacement never arrived.
    """
    for path in folder.glob(f".*{SUFFIX}"):
        remove(path)
    for path in folder.glob(".*.old"):
        if match := _LEFT.fullmatch(path.name):
            _settle(path, folder / match["name"])


def _sweep_beside(target: Path) -> None:
    """As :func:`sweep_out`, but only what writers of ``target`` left whose processes have ended: the folder is not
    locked, so others may be writing there."""
    try:
        names = os.listdir(target.parent)
    except OSError:
        return  # writing will raise the error
    for name in names:
        match = _LEFT.fullmatch(name)
        if match and match["name"] == target.name and not _runs(int(match["process"])):
            with contextlib.suppress(OSError):  # another user's, or just removed by another writer
                _settle(target.parent / name, target)


def _settle(left: Path, target: Path) -> None:
    if left.suffix == SUFFIX or target.exists():
        remove(left)
    else:
        os.replace(left, target)


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; True if that cannot be found out."""
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
