"""The home folder and what is kept in it. Some processes have none: containers run under numbers that no user has."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

LOG = logging.getLogger(__name__)


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


def cache_folder() -> Path | None:
    """``POLYPATH_CACHE``, else ``~/.cache/polypath``; None where that needs a home folder and none is known."""
    try:
        return Path(os.environ.get("POLYPATH_CACHE") or Path.home() / ".cache" / "polypath").expanduser()
    except RuntimeError:
        _tell_once("nothing is cached: no home folder is known; POLYPATH_CACHE names a folder for it")
        return None


def runs_folder() -> Path | None:
    """``POLYPATH_RUNS``, else ``~/.local/share/polypath/runs``; None where that needs a home folder and none is
    known."""
    try:
        named = os.environ.get("POLYPATH_RUNS")
        return Path(named or Path.home() / ".local" / "share" / "polypath" / "runs").expanduser()
    except RuntimeError:
        return None


@lru_cache
def _tell_once(text: str) -> None:
    LOG.info(text)
