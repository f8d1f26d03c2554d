"""Count looks at test images, in ``looks/test_evaluations.json`` of the folder that is evaluated.

A look is one error measured on the test split, for one path with one set of batch-norm statistics. An analysis of test
images that measures no error counts as one look. If test errors are used for choices, they become too optimistic. So
each command counts its looks before it makes them (``{"paths": 8, "report": 24}``).

The count has its own lock, which is taken only briefly, since another process may be writing into the run.
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
PATIENCE = 10.0  # seconds to wait for other processes that are counting
LOG = logging.getLogger(__name__)


def looks(folder: Path) -> dict[str, int]:
    """Return the number of looks of each command.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / FOLDER / FILE
    return read(file, dict[str, int]) if file.is_file() else {}


def add_looks(folder: Path, by: str, count: int) -> None:
    """Add ``count`` looks of the command ``by``. If the folder cannot be written to, only a warning is logged.

    Raises:
        ValueError: the file is damaged, or another process has locked it.
    """
    if count < 1:
        return
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        with _locked(folder / FOLDER):
            known = looks(folder)
            write_json(folder / FOLDER / FILE, known | {by: known.get(by, 0) + count})
    except OSError as error:
        LOG.warning("%s: %d looks at test images could not be counted (%s)", folder, count, error.strerror or error)


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
