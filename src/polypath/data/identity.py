"""The identity of a dataset's images: for each split and class, the number of images, their size in bytes, and a
digest.

A run stores the identity of its images. So a later command can check that it reads the same images, or report the
differences. The location and the modification times of the files do not matter.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

LIMIT = 2 << 30  # bytes; of larger datasets, only the first and last END bytes of SAMPLE files are read
SAMPLE = 1000
END = 1 << 20  # bytes
MOST_NAMED = 3


@dataclass(frozen=True)
class Part:
    """The images of one split, or of one class of a split.

    Attributes:
        bytes: total size of the files, or of the sampled images.
        digest: digest of names, sizes and contents. If there are more than ``LIMIT`` bytes, only the contents of a
            sample are used.
    """

    images: int
    bytes: int
    digest: str


Identity = Mapping[str, Part]
"""Maps names to parts. A name is a split (``train``) or a split and a class (``train/cat``)."""


@dataclass(frozen=True)
class FileFacts:
    """Facts about one file: its path relative to the dataset's folder, size, modification time, and digest (empty if
    the file was not read).

    A file that cannot be read has size -1 and no digest.
    """

    name: bytes
    size: int
    time: int
    digest: bytes


def read_files(paths: Sequence[Path], root: Path, limit: int = LIMIT) -> tuple[list[FileFacts], bool]:
    """Return the facts of each file, and whether all files were read completely."""
    stats = [_stat(path) for path in paths]
    whole = sum(found.st_size for found in stats if found) <= limit
    step = 1 if whole else -(-len(paths) // SAMPLE)
    facts = []
    for i, (path, found) in enumerate(zip(paths, stats, strict=True)):
        name = os.fsencode(path.relative_to(root).as_posix())
        digest = b"" if found is None or i % step else _contents(path, _whole if whole else _ends)
        if found is None or digest is None:
            facts.append(FileFacts(name, -1, 0, b""))
        else:
            facts.append(FileFacts(name, found.st_size, found.st_mtime_ns, digest))
    return facts, whole


def fingerprint(facts: Sequence[FileFacts], whole: bool) -> str:
    """Compute a digest of names, sizes and contents of files. If only a sample was read, modification times are used
    instead of the contents."""
    h = hashlib.blake2b(digest_size=16)
    for file in facts:
        h.update(file.name + f"\0{file.size}\0".encode())
        h.update(file.digest if whole else str(file.time).encode())
    return h.hexdigest()


def part_of(facts: Iterable[FileFacts], images: int) -> Part:
    """Summarise files as a part, which does not depend on the location and the modification times of the files."""
    h, size = hashlib.blake2b(digest_size=16), 0
    for file in facts:
        h.update(file.name + f"\0{file.size}\0".encode() + file.digest)
        size += max(file.size, 0)
    return Part(images, size, h.hexdigest())


def sampled_part(labels: Sequence[object], read: Callable[[list[int]], Iterable[object]]) -> Part:
    """Summarise the rows of a table as a part, from all labels and the bytes of at most ``SAMPLE`` images."""
    h, size = hashlib.blake2b(repr(list(labels)).encode(), digest_size=16), 0
    for data in read(list(range(0, len(labels), -(-len(labels) // SAMPLE) or 1))):
        if isinstance(data, bytes):
            h.update(hashlib.blake2b(data).digest())
            size += len(data)
    return Part(len(labels), size, h.hexdigest())


def differences(before: Identity, now: Identity) -> list[str]:
    """Return a phrase for each part that differs. The list is empty if all parts are the same."""
    told = []
    for name in sorted(before.keys() | now.keys()):
        a, b = before.get(name), now.get(name)
        if a is None or b is None:
            told.append(f"{name} is {'new' if a is None else 'missing'}")
        elif a.images != b.images:
            told.append(f"{name} has {b.images:,} images, not {a.images:,}")
        elif a != b:
            told.append(f"{name} has other {'contents or names' if a.bytes == b.bytes else 'contents'}")
    return told


def brief(told: Sequence[str]) -> str:
    """Join the first few phrases, and add the number of the others."""
    more = f", and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return ", ".join(told[:MOST_NAMED]) + more


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _contents(path: Path, digest: Callable[[BufferedReader], bytes]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return digest(file)
    except OSError:
        return None


def _whole(file: BufferedReader) -> bytes:
    return hashlib.file_digest(file, "blake2b").digest()


def _ends(file: BufferedReader) -> bytes:
    h = hashlib.blake2b(file.read(END))
    file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - END))
    h.update(file.read(END))
    return h.digest()
