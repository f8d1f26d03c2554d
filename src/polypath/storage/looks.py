"""Counts looks at test images, in ``looks/test_evaluations.json`` of the folder that was scored on them.

A look is one error that was measured on the test split, of one path by one set of batch-norm statistics; an analysis of
test images without an error counts as one. Choosing by test errors makes them too optimistic, so each look is counted
before it is made, by the command that makes it (``{"paths": 8, "report": 24}``).

The record has its own lock, which is held only briefly, since another process may be writing into the run.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from polypath.storage.decode import read
from polypath.storage.files import write_json
from polypath.storage.lock import FolderLock

FOLDER = "looks"
FILE = "test_evaluations.json"
PATIENCE = 10.0  # seconds to wait for other processes that count
LOG = logging.getLogger(__name__)


def looks(folder: Path) -> dict[str, int]:
    """Numbers of looks by the command that made them.

    Raises:
        ValueError: a damaged record.
    """
    file = folder / FOLDER / FILE
    return read(file, dict[str, int]) if file.is_file() else {}


def add_looks(folder: Path, by: str, count: int) -> None:
    """Count looks. If the folder cannot be written to, they are not counted, and a warning says so.

    Raises:
        ValueError: a damaged record, or one that another process holds.
    """
    if count < 1:
        return
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        with _locked(folder / FOLDER):
            known = looks(folder)
            write_json(folder / FOLDER / FILE, known | {by: known.get(by, 0) + count})
    except OSError as error:
        LOG.warning("%s: %d looks at its test images are not counted (%s)", folder, count, error.strerror or error)


def _locked(place: Path) -> FolderLock:
    last = time.monotonic() + PATIENCE
    while True:
        lock = FolderLock(place)
        try:
            lock.take()
            return lock
        except ValueError:
            if time.monotonic() >= last:
                raise
            time.sleep(0.02)
