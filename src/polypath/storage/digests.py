"""Compute digests of files and of JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def file_digest(path: Path, length: int | None = None) -> str:
    """Return the SHA-256 of a file's bytes, or of its first ``length`` bytes."""
    with open(path, "rb") as stream:
        if length is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.read(length)).hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value. The digest does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def folder_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Map the relative path of each file in and below ``folder`` to its ``{"sha256", "bytes"}``, sorted by path."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: {"sha256": file_digest(files[name]), "bytes": files[name].stat().st_size} for name in sorted(files)}
