"""What a run came to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from polypath.storage.decode import read
from polypath.storage.looks import looks
from polypath.training.run import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to; ``summary.json`` holds the same.

    Attributes:
        run_dir: its folder; ``run_dir/model`` is the network that is reported.
        reported: ``best`` (chosen by the images held out) or ``last``.
        epoch: the epoch that is reported, from 1.
        val_error, test_error: top-1 error in percent; ``val_error`` None where nothing was held out.
        seconds: of all sessions together.
        pflop: floating-point operations of all training passes, in 10^15, by the convention of
            :mod:`polypath.training.flop`; None where not all of them were counted.
        test_evaluations: errors on the test split that the run has measured, those of ``trace_test`` and of snapshots
            among them; None in summaries from before it was counted.
        precision: of the forward passes; None in summaries from before it was written down.
        notes: what a reader has to know of the data; warnings.
        balanced_error: the mean of the classes' errors on the test split, where training drew classes alike.
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
    """What a finished run came to.

    Raises:
        ValueError: a run that is not finished, or whose summary is damaged.
    """
    return read_result(RunFolder.open(Path(run_dir)))


def count_test_evaluations(run: RunFolder) -> dict[str, int]:
    """Errors on the test split of a run that have been measured: by ``train`` itself, and by whatever has looked since.

    Raises:
        ValueError: a damaged summary or record.
    """
    trained = read_result(run).test_evaluations or 1 if run.finished else 0  # before it was counted there was one
    return {"train": trained, **looks(run.path)}


def read_result(run: RunFolder) -> RunResult:
    """As :func:`result_of`, of a run folder that is open."""
    if not run.summary_file.exists():
        raise ValueError(f"{run.path}: not finished; go on with it by `polypath resume {run.path}`")
    return replace(read(run.summary_file, RunResult, finite=False), run_dir=str(run.path))
