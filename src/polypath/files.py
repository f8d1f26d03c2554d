"""Files that are whole or not there: written beside their place, flushed, renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_file(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Put ``data`` (text as UTF-8) at ``path``; whoever looks sees the old file or the new one, never a part.

    Raises:
        OSError: no space, no permission; what was at ``path`` is still there then.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


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
