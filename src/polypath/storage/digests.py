"""Digests of files and of JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def file_digest(path: Path, length: int | None = None) -> str:
    """SHA-256 of a file's bytes, or of its first ``length`` ones."""
    with open(path, "rb") as stream:
        if length is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.read(length)).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever its layout."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def folder_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """``{"sha256", "bytes"}`` of each file in ``folder`` by its name, in order."""
    files = sorted(folder.iterdir())
    return {file.name: {"sha256": file_digest(file), "bytes": file.stat().st_size} for file in files}
