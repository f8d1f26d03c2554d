'''Opens the methods that ``polypath bench anytime`` measures. A method is a Python file, which is run as a script.

    name = "two sizes"
    pflop = 0.3                                    # PFLOP of all its training; leave it out if it is not known
    files = ["small.onnx", "large.onnx"]           # other files that its answers depend on; changes are noticed

    def train(train, held_out, folder, seed):      # only if the method learns during the bench
        """Write everything to ``folder`` and return the PFLOP; images have ``pixels`` and ``labels``."""

    def options(folder):                           # from the least to the most accurate on your held-out images
        """Return functions by name; each takes a uint8 image (H, W, C) and returns a score for each class."""
        return {"small": answer, "large": another}

Everything but ``name`` and ``options`` may be left out.
'''

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypath.core.checks import NAME, check, number
from polypath.storage.digests import file_digest, json_digest
from polypath.worth.protocol import Images

Answer = Callable[[NDArray[np.uint8]], Any]
"""A function that returns the scores ``(classes,)`` of one image ``(H, W, C)``."""


@dataclass(frozen=True)
class Method:
    """A method, opened by running its file.

    Attributes:
        digest: digest of the file and of the files that it lists in ``files``.
        pflop: the PFLOP of training that the file states, or None.
    """

    file: Path
    name: str
    digest: str
    pflop: float | None
    module: ModuleType

    @property
    def trains(self) -> bool:
        return hasattr(self.module, "train")

    def train(self, train: Images, held_out: Images, folder: Path, seed: int) -> float | None:
        """Train the method, and return the PFLOP of its training.

        Raises:
            ValueError: the method's function raises an error, or does not return a number or None.
        """
        try:
            spent = self.module.train(train, held_out, folder, seed)
        except (Exception, SystemExit) as error:
            raise ValueError(self._told("train", error)) from error
        return self.pflop if spent is None else float(check(f"{self.file}: train's PFLOP", spent, number(0)))

    def options(self, folder: Path) -> dict[str, Answer]:
        """Return the functions of the method's options by name, from the least to the most accurate.

        Raises:
            ValueError: the method's function raises an error, or returns something else.
        """
        try:
            found = self.module.options(folder)
        except (Exception, SystemExit) as error:
            raise ValueError(self._told("options", error)) from error
        if not isinstance(found, Mapping) or not found:
            raise ValueError(
                f"{self.file}: options must return a dict of at least one function, but returned {found!r}"
            )
        for key, answer in found.items():
            check(f"{self.file}: options: name", key, NAME)
            if not callable(answer):
                raise ValueError(f"{self.file}: options: {key!r} = {answer!r}: must be a function of an image")
        return dict(found)

    def scores(self, option: str, answer: Answer, image: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
        """Run an option on an image. Check its scores, and return them.

        Raises:
            ValueError: the option raises an error, or does not return a finite score for each class.
        """
        try:
            found = np.asarray(answer(image), np.float64)
        except (Exception, SystemExit) as error:
            raise ValueError(self._told(option, error)) from error
        if found.shape != (classes,):
            raise ValueError(f"{self.file}: {option} returned scores of shape {found.shape}: must be ({classes},)")
        if not np.isfinite(found).all():
            raise ValueError(f"{self.file}: {option} returned a score that is not a finite number: {found.tolist()}")
        return found

    def _told(self, what: str, error: BaseException) -> str:
        return f"{self.file}: {what} failed{_place(error, self.file)}"


def open_method(file: Path) -> Method:
    """Run a method's file. Its output goes to standard error.

    Raises:
        ValueError: the file does not exist, raises an error, or lacks a part of a method.
    """
    if not file.is_file():
        raise ValueError(f"--method {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"polypath_method_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"--method {file}: must be a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and torch's pickles look up their module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--method {file}: the file failed{_place(error, file)}") from error
    name, pflop = getattr(module, "name", None), getattr(module, "pflop", None)
    check(f"--method {file}: name", name, NAME)
    if pflop is not None:
        pflop = float(check(f"--method {file}: pflop", pflop, number(0)))
    for function in ("options", *(["train"] if hasattr(module, "train") else [])):
        if not callable(getattr(module, function, None)):
            raise ValueError(f"--method {file}: must define the function {function} (see docs/protocol.md)")
    return Method(file, str(name).strip(), _digest(file, getattr(module, "files", ())), pflop, module)


def _digest(file: Path, others: Any) -> str:
    if isinstance(others, str | bytes) or not isinstance(others, list | tuple):
        raise ValueError(f"--method {file}: files = {others!r}: must be a list of files and folders")
    found = {"": file_digest(file)}
    for other in others:
        place = file.parent / other
        if not place.exists():
            raise ValueError(f"--method {file}: files: {place} does not exist")
        inside = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        found |= {f"{place.name}/{path.relative_to(place)}": file_digest(path) for path in inside}
    return json_digest(found)


def _place(error: BaseException, file: Path) -> str:
    """Return a text with the line of ``file`` where ``error`` occurred, and the error's message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f", line {lines[-1]}" if lines and lines[-1] is not None else ""
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def stated(pflop: float | None) -> str:
    """Return a number of PFLOP as text for tables."""
    return "not stated" if pflop is None or not math.isfinite(pflop) else f"{pflop:.4g}"
