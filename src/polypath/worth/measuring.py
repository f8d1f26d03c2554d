"""Runs a method in a separate process. Training uses all cores; scoring and timing use only one.

    run_alone(Job(what="score", ...))       # starts another process, and waits until it ends

Scoring and timing use one thread on one core. The process is bound to this core if the system supports that. So every
runtime has the same resources, whatever its defaults are. A method's output goes to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from polypath.core.parent import belong_to
from polypath.profiling.latency import interleaved
from polypath.reproduce.measured import Correct, Measured, save_measured
from polypath.storage.decode import decode
from polypath.storage.files import write_json
from polypath.worth.method import Answer, Method, open_method
from polypath.worth.protocol import (
    PROFILE_RUNS,
    WARM_UPS,
    Task,
    asked,
    load_task,
    read_trace,
    reference,
    reference_input,
)
from polypath.worth.replay import neighbour, replay, without_collection

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
BLOCK = 250  # number of requests between two writes


@dataclass(frozen=True, kw_only=True)
class Job:
    """A description of the work of one process.

    Attributes:
        what: ``train`` a method, ``score`` its options on the test images, or measure the ``times`` of all methods'
            options.
        files: the methods' files.
        folders: the folder of each method's training, in the same order.
        out: the file (train, score) or folder (times) of the result.
        key: the digests that determine the result. They are written into the result.
        requests: number of requests of the trace (times).
        parent: id of the process that waits for the result.
    """

    what: Literal["train", "score", "times"]
    files: list[str]
    folders: list[str]
    source: str
    out: str
    key: list[str]
    seed: int = 0
    requests: int = 0
    parent: int = 0


class Trained(TypedDict):
    """The contents of ``train.json``: the cost of training a method."""

    key: list[str]
    pflop: float | None


class Profile(TypedDict):
    """The contents of ``profile.json``: milliseconds ``(runs, options)`` of all options without a neighbour.
    ``unit_ms`` is the median of the reference network."""

    key: list[str]
    unit_ms: float
    times: list[list[float]]


class Block(TypedDict):
    """The contents of ``requests-N.json``: milliseconds ``(requests, options)`` from request N of the trace on."""

    key: list[str]
    times: list[list[float]]


def run_alone(job: Job) -> None:
    """Do a job in a new process.

    Raises:
        ValueError: the job failed, or the process was killed.
    """
    one = {} if job.what == "train" else dict.fromkeys(ONE_THREAD, "1")
    values = json.dumps(asdict(job) | {"parent": os.getpid()})
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, values], stdout=subprocess.PIPE, text=True, env=dict(os.environ) | one
    )
    try:
        said, _ = process.communicate()
    finally:
        process.kill()  # in case this process was interrupted
        process.wait()
    if process.returncode:
        raise ValueError(
            said.strip() or f"{job.files[0]}: the process of this method ended with status {process.returncode}"
        )


def main() -> None:
    """Do the job given as JSON in the first argument. Only the error of a failed job goes to standard output."""
    job = decode(json.loads(sys.argv[1]), Job, "job")
    belong_to(job.parent)
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if job.what != "train":
        _bind()
    try:
        do(job)
    except (ValueError, ImportError, OSError) as error:
        print(" ".join((str(error) or type(error).__name__).split()), file=told, flush=True)
        sys.exit(2)


def do(job: Job) -> None:
    """Do a job in this process.

    Raises:
        ValueError: a method fails, or returns a wrong value.
    """
    with torch.inference_mode(job.what != "train"):
        {"train": _train, "score": _score, "times": _times}[job.what](job)


def _bind() -> None:
    """Restrict this process to one thread on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def _train(job: Job) -> None:
    method, task = open_method(Path(job.files[0])), load_task(job.source)
    spent = method.train(task.train, task.held_out, Path(job.folders[0]), job.seed)
    write_json(job.out, Trained(key=job.key, pflop=spent))


def _score(job: Job) -> None:
    (method,), (options,), task = _opened(job)
    found = {name: np.empty(len(task.test), bool) for name in options}
    for name, answer in options.items():
        for i, image in enumerate(task.test.pixels):
            scores = method.scores(name, answer, image, len(task.classes))
            found[name][i] = scores.argmax() == task.test.labels[i]
    images = task.digests["test"]
    save_measured(Path(job.out), Measured({name: Correct(hits, images) for name, hits in found.items()}), job.key)


def _times(job: Job) -> None:
    methods, options, task = _opened(job)
    pairs = [(method, *item) for method, of in zip(methods, options, strict=True) for item in of.items()]
    for method, name, answer in pairs:  # first, so that failures are reported before the measurement
        method.scores(name, answer, task.test.pixels[0], len(task.classes))
    tasks = [lambda image, answer=answer: np.asarray(answer(image)) for _, _, answer in pairs]
    folder, trace = Path(job.out), read_trace(job.requests)
    with without_collection():
        if not (folder / "profile.json").is_file():
            unit, times = _profile(tasks, task.test.pixels)
            write_json(folder / "profile.json", Profile(key=job.key, unit_ms=unit, times=_rounded(times)))
        images = task.test.pixels[asked(trace, len(task.test))]
        with neighbour() as wake:
            for first in range(0, len(images), BLOCK):
                file, part = folder / f"requests-{first}.json", slice(first, first + BLOCK)
                if file.is_file():
                    continue
                for one in tasks:
                    one(images[first])
                times = replay(tasks, list(images[part]), trace.neighbour[part].tolist(), wake)
                write_json(file, Block(key=job.key, times=_rounded(times)))


def _profile(tasks: Sequence[Any], pixels: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64]]:
    """Measure the reference network and the tasks alternately. Return the median milliseconds of the reference, and the
    milliseconds of each task ``(runs, tasks)``."""
    net, x = reference(), reference_input()
    count = 0

    def turn() -> None:  # all tasks of a turn get the same image; the next turn has another image
        nonlocal count
        count += 1
        net(x)

    by_turns = {"reference": turn}
    for i, one in enumerate(tasks):
        by_turns[str(i)] = lambda one=one: one(pixels[count % len(pixels)])
    taken = interleaved(by_turns, PROFILE_RUNS, WARM_UPS)
    unit = 1e3 * float(np.median(taken.pop("reference")))
    return unit, 1e3 * np.array(list(taken.values())).T


def _opened(job: Job) -> tuple[list[Method], list[dict[str, Answer]], Task]:
    """Open the methods, their options and the images."""
    methods = [open_method(Path(file)) for file in job.files]
    options = [method.options(Path(folder)) for method, folder in zip(methods, job.folders, strict=True)]
    return methods, options, load_task(job.source)


def _rounded(times: NDArray[np.float64]) -> list[list[float]]:
    return np.round(times, 5).tolist()


if __name__ == "__main__":
    main()
