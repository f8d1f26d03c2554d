"""Makes bundles whose files are links, as in the Hub's cache (``snapshots/… -> ../../blobs/…``), readable for runtimes.

A graph refers by name to weight files in its folder. OpenVINO and ONNX Runtime 1.24 first resolve links, then refuse
weights outside the graph's folder. onnx also refuses files with several names (hard links), which some installers make.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path


class PlainFiles:
    """A folder's files in a form that runtimes accept.

    ``folder`` is the original folder, unless its files are links to other folders or its name is not UTF-8. Then it is
    a temporary folder with copies, which is deleted with this object.

    Args:
        one_name: whether to copy files with several names as well.

    Raises:
        OSError: a temporary folder is needed but cannot be written.
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
