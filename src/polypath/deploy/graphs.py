"""A bundle's graphs as a runtime may read them: checked, and where their weights are plain files beside them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.deploy.graph_check import IMAGES, LOGITS, Value, check_graph
from polypath.deploy.plain_files import PlainFiles

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle


class Graphs:
    """The ONNX files of a bundle's paths.

    Args:
        one_name: copy files that have several names, see :class:`PlainFiles`.
    """

    def __init__(self, bundle: Bundle, *, one_name: bool = False) -> None:
        self._bundle, self._checked, self._lock = bundle, set[str](), threading.Lock()
        self._files = PlainFiles(bundle.folder, bundle.manifest.files, one_name=one_name)

    def file(self, path: str) -> Path:
        """The graph of a path, which is checked when it is first asked for.

        Raises:
            GraphRefused: it is none that a runtime may read, or not what the manifest says.
            ImportError: onnx is missing.
        """
        name = self._bundle.path(path).files["onnx"]
        file = self._files.folder / name
        with self._lock:
            if name not in self._checked:
                images = Value(IMAGES, (self._bundle.preparation.channels, *self._bundle.size))
                logits = Value(LOGITS, (len(self._bundle.classes),))
                check_graph(file, self._bundle.manifest.files, [images], [logits])
                self._checked.add(name)
        return file
