"""How often test images have been looked at: ``looks/test_evaluations.json`` in the folder of what was scored on them.

A look is one error that was measured on the test split, of one path by one set of batch-norm statistics; an analysis of
test images that has no error of its own counts as one. Who chooses by looks chooses by luck, so each is counted
before it is made, by what makes it (``{"paths": 8, "report": 24}``).

The record has a lock of its own, which is held for a moment only: looks are taken while another process writes into the
run, too.
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
PATIENCE = 10.0  # seconds to wait for others that count
LOG = logging.getLogger(__name__)


def looks(folder: Path) -> dict[str, int]:
    """Looks by what made them.

    Raises:
        ValueError: a damaged record.
    """
    file = folder / FOLDER / FILE
    return read(file, dict[str, int]) if file.is_file() else {}


def add_looks(folder: Path, by: str, count: int) -> None:
    """Count looks. Where the folder cannot be written to they cannot be counted, which is told.

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
