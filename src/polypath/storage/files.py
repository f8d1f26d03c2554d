"""Files and folders that appear whole or not at all: written beside their place, flushed, renamed."""

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

DEEPEST = 100  # tables and lists within each other
LARGEST = 2**26  # bytes of a JSON file
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)
SUFFIX = ".tmp"
"""Of temporary names: ``.NAME.PROCESS.tmp`` is what a killed process may leave."""
NAME_OF_LOCK = ".lock"
"""Of the file that a writer locks (:mod:`polypath.storage.lock`)."""
_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>tmp|old)")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes ``path`` when the block has ended well.

    Raises:
        OSError: no space, no permission; what was at ``path`` is still there then.
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
    """Put ``data`` (text as UTF-8) at ``path``; whoever looks sees the old file or the new one, never a part.

    Raises:
        OSError: no space, no permission; what was at ``path`` is still there then.
    """
    with whole(Path(path)) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Put a JSON document at ``path``, as :func:`write_file` does."""
    write_file(path, json.dumps(value, indent=2) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block has ended well, and is gone otherwise."""
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
    """What is in a folder, but for a writer's lock and what killed ones left half-written."""
    return [path for path in folder.iterdir() if path.name != NAME_OF_LOCK and path.suffix != SUFFIX]


def check_own(folder: Path, marker: str, what: str) -> None:
    """Raise ``ValueError`` unless nothing is at ``folder``, an empty folder, or a ``what``, which has the file
    ``marker``."""
    if folder.exists() and (not folder.is_dir() or contents(folder)) and not (folder / marker).is_file():
        raise ValueError(f"{folder} exists and is no {what}: choose another --out")


def check_vacant(target: Path, what: str = "") -> None:
    """Raise ``ValueError`` unless nothing is at ``target``, or an empty folder; ``what`` stands before its name."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{what}{target}: exists and is not empty; choose another folder")


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of a regular file, the first ``most`` of them (all below 0); nothing else is read, or waited for.

    Raises:
        OSError: no such file, no permission, or a pipe, a device, a socket, a folder; its ``strerror`` says which.
    """
    check_regular(path, os.stat(path).st_mode)  # to open some devices is to make them act
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
    """The JSON value in a file of at most so many bytes.

    Raises:
        ValueError: a file that is missing, unreadable, larger or no JSON; the message names it.
    """
    try:
        data = read_regular(path, most + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if len(data) > most:
        raise ValueError(f"{path}: damaged, it has more than {most:,} bytes")
    return parse_json(data, str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The JSON value that a text is, NaN and infinity included.

    Raises:
        ValueError: no JSON, values nested more than ``DEEPEST`` times, or a key that stands twice in a table, of which
            readers take one or the other; the message starts with ``where``.
    """
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_table)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: damaged, or no JSON ({error})") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice")
    return table


def _check_depth(value: Any) -> None:
    """What is less deep can be written, compared and shown, which all take the interpreter's stack."""
    level = [[value]]
    for _ in range(DEEPEST + 1):
        parts = (part for table in level for part in (table.values() if isinstance(table, dict) else table))
        if not (level := [part for part in parts if isinstance(part, dict | list)]):
            return
    raise ValueError(f"nested more than {DEEPEST} times")


def remove(path: Path) -> None:
    """Remove a file, or a folder that stands where one should be; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_out(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``; no other process may be writing there.

    A folder that :func:`new_folder` had moved away for its successor takes its place again where that did not come.
    """
    for path in folder.glob(f".*{SUFFIX}"):
        remove(path)
    for path in folder.glob(".*.old"):
        if match := _LEFT.fullmatch(path.name):
            _settle(path, folder / match["name"])


def _sweep_beside(target: Path) -> None:
    """:func:`sweep_out` for what earlier writers of ``target`` left whose processes are gone: its folder is not
    locked, so others may be writing there."""
    try:
        names = os.listdir(target.parent)
    except OSError:
        return  # writing will say why
    for name in names:
        match = _LEFT.fullmatch(name)
        if match and match["name"] == target.name and not _runs(int(match["process"])):
            with contextlib.suppress(OSError):  # another's, or just swept by another writer
                _settle(target.parent / name, target)


def _settle(left: Path, target: Path) -> None:
    if left.suffix == SUFFIX or target.exists():
        remove(left)
    else:
        os.replace(left, target)


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked, it does."""
    if sys.platform == "win32":  # to ask would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
