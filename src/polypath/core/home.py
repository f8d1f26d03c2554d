"""The home folder, and Polypath's folders in it. In a container, the user may have no home folder."""

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
    """If neither ``HOME`` nor the user database has a home folder, use a temporary one until the process ends.

    OpenVINO and matplotlib read settings there; the Hugging Face libraries and torch's compiler cache files there.
    Without a home folder some of these packages fail, and others make a folder ``~`` in the working directory. Child
    processes use the same temporary folder.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = folder = tempfile.mkdtemp(prefix="polypath-home-")
        atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked process ends earlier and must keep the folder
        shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path | None:
    """Return ``POLYPATH_CACHE``, by default ``~/.cache/polypath``; return None if the home folder is unknown."""
    try:
        return Path(os.environ.get("POLYPATH_CACHE") or Path.home() / ".cache" / "polypath").expanduser()
    except RuntimeError:
        _tell_once("nothing is cached, because no home folder is known; set POLYPATH_CACHE to a folder")
        return None


def runs_folder() -> Path | None:
    """Return ``POLYPATH_RUNS``, by default ``~/.local/share/polypath/runs``; return None if the home is unknown."""
    try:
        named = os.environ.get("POLYPATH_RUNS")
        return Path(named or Path.home() / ".local" / "share" / "polypath" / "runs").expanduser()
    except RuntimeError:
        return None


@lru_cache
def _tell_once(text: str) -> None:
    LOG.info(text)
