"""Writes and reads the folder of a result, which contains these files:

result.json     the run (scale and its changes, seeds, revision, versions, device, time), the measurements, the verdicts
result.md       the result as a page, with measured and published numbers side by side
figure.png, figure.svg    the figure, in the paper's form
correct.npz     which test images each network classifies correctly, as bits, for computing verdicts again; not written
                if larger than 200 kB
recipes.json    the arms' recipes: the first in full, the others as differences from it
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from polypath.analysis.plots.style import save_figure
from polypath.reproduce.code import code_id
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.figures import error_bars
from polypath.reproduce.measured import packed, unpacked
from polypath.reproduce.result import FORMAT, Result
from polypath.reproduce.section import section
from polypath.storage.decode import decode
from polypath.storage.files import read_json, write_file, write_json

FILES = ("result.json", "result.md", "figure.png", "figure.svg", "correct.npz", "recipes.json")
LARGEST = 200_000  # largest correct.npz that is kept, in bytes


def save_result(result: Result, folder: str | os.PathLike[str], experiment: Experiment | None = None) -> None:
    """Write the folder's files, each atomically. The figure is drawn by the function of ``experiment``, if it has
    one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    bits = packed(result.correct, result.test_sets) if result.correct else b""
    if 0 < len(bits) <= LARGEST:
        write_file(folder / "correct.npz", bits)
    write_json(folder / "recipes.json", result.arms)
    figure = (experiment.figure if experiment is not None and experiment.figure else error_bars)(result)
    save_figure(figure, folder, "figure")
    write_file(folder / "result.md", section(result, experiment, level=1))
    write_json(folder / "result.json", result.to_json())  # written last, so a folder that has it is complete


def load_result(folder: str | os.PathLike[str]) -> Result:
    """Read a folder written by :func:`save_result`. ``correct`` is empty if it was too large to keep, and a verdict's
    ``id`` is empty if the folder has format 1.

    Raises:
        ValueError: the folder has no result, or the result is damaged.
    """
    folder, file = Path(folder), Path(folder) / "result.json"
    held = read_json(file)
    try:
        version = held.pop("format")
        if version not in (1, FORMAT):
            raise ValueError(f"its format is {version}; it must be 1 or {FORMAT}")
        if version == 1:
            held["verdicts"] = [{"id": "", **verdict} for verdict in held["verdicts"]]
        result = decode(held, Result, "result", finite=False)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file}: this is not a result, or it is damaged ({error})") from error
    if (folder / "correct.npz").is_file():
        correct, _ = unpacked(folder / "correct.npz")
        result = replace(result, correct=correct)
    return result


def set_aside(folder: Path) -> Path | None:
    """Move the result in ``folder`` to the subfolder ``stale-CODE`` if it was made by other code, and return the
    subfolder. Return None if there is no such result."""
    if not (folder / "result.json").is_file():
        return None
    code = str(read_json(folder / "result.json").get("code") or "unknown")
    if code == code_id():
        return None
    kept = folder / f"stale-{code}"
    if kept.exists():
        shutil.rmtree(kept)
    kept.mkdir()
    for name in FILES:
        if (folder / name).exists():
            os.replace(folder / name, kept / name)
    return kept
