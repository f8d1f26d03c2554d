"""List the contents of a folder: sub-folders, image files, and files that are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polypath.core.display import printable
from polypath.data.names import hidden_or_system

EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".avif",
    }
)


@dataclass
class LeftOut:
    """A count of the files that are not images, for reports: for each suffix, their number and one example."""

    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, Path] = field(default_factory=dict)

    def add(self, file: Path) -> None:
        kind = file.suffix.lower() or "no suffix"
        self.kinds[kind] += 1
        self.first.setdefault(kind, file)

    def told(self, root: Path) -> list[str]:
        """Return a phrase for each suffix, such as ``3 files with .txt, such as cat/notes.txt``."""
        told = []
        for kind, n in sorted(self.kinds.items()):
            name = printable(str(self.first[kind].relative_to(root)))
            told.append(f"{n:,} files with {kind}, such as {name}" if n > 1 else name)
        return told


def folders_in(root: Path, *, skip_broken: bool = True) -> list[Path]:
    """List the folders in ``root``, including links to folders, but without hidden and system folders.

    Raises:
        ValueError: there is a dangling link that may have been a link to a folder, unless ``skip_broken``.
    """
    found = []
    for entry in os.scandir(root):
        if hidden_or_system(entry.name):
            continue
        if entry.is_dir():
            found.append(Path(entry.path))
        elif not skip_broken and _leads_nowhere(entry) and not os.path.splitext(entry.name)[1]:
            raise ValueError(
                f"{printable(entry.path)} is a dangling link; repair or remove it, or leave it out with "
                "broken='skip' (--data.broken skip)"
            )
    return sorted(found)


def images_in(
    folder: Path, *, deep: bool = True, above: Sequence[Path] = (), left_out: LeftOut | None = None
) -> Iterator[Path]:
    """Find the image files in a folder and, with ``deep``, in its sub-folders. Links are followed, and each folder is
    read once."""
    seen = {_inode(path) for path in (*above, folder)}
    for at, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        inner = sorted(name for name in folders if not hidden_or_system(name))
        folders[:] = []
        for name in inner if deep else ():
            if (inode := _inode(Path(at, name))) not in seen:
                seen.add(inode)
                folders.append(name)
        for name in names:
            if hidden_or_system(name):
                continue
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield Path(at, name)
            elif left_out is not None:
                left_out.add(Path(at, name))


def _inode(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _raise(error: OSError) -> None:
    raise error


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
