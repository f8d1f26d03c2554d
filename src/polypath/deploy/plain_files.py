"""Bundles whose files are links, as in the Hub's cache (``snapshots/… -> ../../blobs/…``).

A graph names the files of its weights by their names beside it. OpenVINO and ONNX Runtime 1.24 follow the links first,
and refuse weights that then lie outside of the graph's folder. onnx refuses also files that have several names, as some
installers make them (hard links).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path


class PlainFiles:
    """Files of a folder as a runtime takes them: ``folder`` is theirs or, where the files lie elsewhere or the folder's
    name is no UTF-8, a temporary one with copies, as long as this object lives.

    Args:
        one_name: copy files that have several names too.

    Raises:
        OSError: a temporary folder is needed, and there is no place for it.
    """

    def __init__(self, folder: Path, names: Iterable[str], *, one_name: bool = False) -> None:
        self.folder = folder
        real = Path(os.path.realpath(folder))
        files = {name: Path(os.path.realpath(folder / name)) for name in names}
        here = all(file.is_relative_to(real) for file in files.values())
        if here and _is_text(folder) and not (one_name and any(file.stat().st_nlink > 1 for file in files.values())):
            return
        self.folder = Path(tempfile.mkdtemp(prefix="polypath-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        for name, file in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, self.folder / name)


def _is_text(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
