"""A home folder for processes that have none: containers run under numbers that no user has."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def ensure_home() -> None:
    """Where neither ``HOME`` nor the list of users names a home folder, take an empty one until the process ends.

    OpenVINO and matplotlib look for settings in it, the Hugging Face libraries and torch's compiler for what they keep;
    without one some of them fail, and others make a folder ``~`` in the working directory. So they work, keeping
    nothing. Processes that are started from here share it.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = folder = tempfile.mkdtemp(prefix="polypath-home-")
        atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked one ends earlier
        shutil.rmtree(folder, ignore_errors=True)
