"""The result of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from polypath.storage.decode import read
from polypath.storage.looks import looks
from polypath.training.run import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run, also saved as ``summary.json``.

    Attributes:
        run_dir: the run's folder; ``run_dir/model`` is the reported network.
        reported: which epoch is reported: ``best`` (the lowest error on held-out images) or ``last``.
        epoch: number of the reported epoch, counted from 1.
        val_error, test_error: top-1 error in percent, on held-out and on test images; ``val_error`` is None if no
            images were held out.
        seconds: time of all sessions together (the run may have been resumed).
        pflop: floating-point operations of all training passes, in units of 10^15, counted as in
            :mod:`polypath.training.flop`; None if some passes were not counted.
        test_evaluations: number of evaluations on the test split, including those of ``trace_test`` and of snapshots;
            None if the summary is from an old version without this field.
        precision: precision of the forward passes; None if the summary is from an old version without this field.
        notes: remarks about the data, and warnings.
        balanced_error: test error in percent, averaged over the classes, if training was ``balanced``; else None.
    """

    run_dir: str
    name: str
    reported: str
    epoch: int
    val_error: float | None
    test_error: float
    test_loss: float
    test_images: int
    parameters: int
    steps: int
    seconds: float
    processes: int
    device: str
    seed: int
    revision: str | None
    precision: str | None = None
    pflop: float | None = None
    test_evaluations: int | None = None
    notes: list[str] = field(default_factory=list)
    snapshots: dict[str, float] = field(default_factory=dict)
    balanced_error: float | None = None


def result_of(run_dir: str | os.PathLike[str]) -> RunResult:
    """Read the result of a finished run.

    Raises:
        ValueError: the run is not finished, or its summary is damaged.
    """
    return read_result(RunFolder.open(Path(run_dir)))


def count_test_evaluations(run: RunFolder) -> dict[str, int]:
    """Count the evaluations on a run's test split, by command: ``train``, and the commands that were used on the run
    later.

    Raises:
        ValueError: the summary or the record of evaluations is damaged.
    """
    trained = read_result(run).test_evaluations or 1 if run.finished else 0  # 1: old runs have no count
    return {"train": trained, **looks(run.path)}


def read_result(run: RunFolder) -> RunResult:
    """Read the result of a finished run, as :func:`result_of` does, from an open run folder."""
    if not run.summary_file.exists():
        raise ValueError(f"{run.path}: the run is not finished; continue it with `polypath resume {run.path}`")
    return replace(read(run.summary_file, RunResult, finite=False), run_dir=str(run.path))
