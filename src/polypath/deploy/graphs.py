"""Provides a bundle's graphs in a form that runtimes can read: checked, with weights in plain files beside them."""

from __future__ import annotations

import threading
from pathlib import Path

from polypath.deploy.graph_check import IMAGES, LOGITS, Value, check_graph
from polypath.deploy.manifest import BundlePath, Manifest, Step
from polypath.deploy.plain_files import PlainFiles


class Graphs:
    """The ONNX files of the bundle in ``folder``.

    Args:
        one_name: whether to copy files with several names as well; see :class:`PlainFiles`.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, one_name: bool = False) -> None:
        self._manifest, self._checked, self._lock = manifest, set[str](), threading.Lock()
        self._files = PlainFiles(folder, manifest.files, one_name=one_name)

    def file(self, path: BundlePath) -> Path:
        """Return the file of a path's graph, which is checked on first use.

        Raises:
            GraphRefused: the graph breaks a rule, or does not match the manifest.
            ImportError: onnx is missing.
        """
        prep = self._manifest.preparation
        return self._read(path.files["onnx"], [Value(IMAGES, (prep.channels, *prep.size))], 0)

    def step(self, step: Step) -> Path:
        """Return the file of a ladder step's graph, which is checked on first use.

        Raises:
            GraphRefused, ImportError: as for :meth:`file`.
        """
        return self._read(step.files["onnx"], [Value()] * len(step.reads), len(step.leaves))

    def _read(self, name: str, inputs: list[Value], left: int) -> Path:
        file = self._files.folder / name
        folder = name[: name.rfind("/") + 1]
        beside = [other.removeprefix(folder) for other in self._manifest.files if other.startswith(folder)]
        with self._lock:
            if name not in self._checked:
                logits = Value(LOGITS, (len(self._manifest.classes),))
                check_graph(file, beside, inputs, [logits, *[Value()] * left])
                self._checked.add(name)
        return file
