"""Files of a run, which :mod:`polypath.files` writes: read with care, told apart by their digests."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from polypath.files import SUFFIX


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        ValueError: a file that is missing, unreadable or no JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: damaged, no JSON ({error})") from error


def digest(path: Path, length: int | None = None) -> str:
    """SHA-256 of a file's bytes, or of its first ``length`` ones."""
    with open(path, "rb") as stream:
        if length is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.read(length)).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever its layout."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder that stands where one should be; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_out(folder: Path) -> None:
    """Remove temporary files that a killed process left in ``folder``."""
    for path in folder.glob(f".*{SUFFIX}"):
        remove(path)
