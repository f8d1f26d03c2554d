r"""Compares methods by the protocol ``anytime-1`` (:mod:`polypath.worth.protocol`, ``docs/protocol.md``).

    result = anytime(["mine.py", "theirs.py"], "cifar10", out="benches/mine")
    print(*result.facts(), sep="\n")

The folder ``out`` contains

bench.json                      the protocol, and digests of the images
methods/NAME/DIGEST/            results of one method: the files of its training (``learnt/``; ``train.json`` exists
                                once it is finished), and which test images each option classifies correctly
                                (``answers.npz``)
times/DIGEST/                   times of all methods in a call: ``profile.json``, ``requests-N.json``
looks/                          number of errors measured on the test images, including those of earlier method files
result.json, result.csv         the result
figure.png, figure.svg          the figure

A second call resumes. Each part is stored under a digest of everything that it depends on: the protocol, the images,
the method's file, the files that this file lists, and the seed. Times also depend on the machine and on all methods. If
anything in a digest differs, the part is computed again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from polypath.analysis.plots.style import save_figure
from polypath.core.checks import check, whole
from polypath.deploy.latency_profile import machine
from polypath.reproduce.measured import load_measured
from polypath.storage.decode import read
from polypath.storage.digests import json_digest
from polypath.storage.files import check_own, write_json
from polypath.storage.lock import FolderLock
from polypath.storage.looks import add_looks, looks
from polypath.training.run import environment
from polypath.worth.anytime_figure import anytime_figure
from polypath.worth.anytime_result import AnytimeResult, MethodResult
from polypath.worth.compare import Asked, Timed, compared
from polypath.worth.measuring import BLOCK, Block, Job, Profile, Trained, run_alone
from polypath.worth.method import Method, open_method
from polypath.worth.protocol import DIGESTS, VERSION, Task, asked, load_task, read_trace

LOG = logging.getLogger(__name__)


def anytime(
    files: Sequence[str | os.PathLike[str]],
    source: str = "cifar10",
    *,
    out: str | os.PathLike[str],
    seed: int = 0,
    requests: int | None = None,
) -> AnytimeResult:
    """Measure methods by the protocol, and write the result into the folder ``out``; see the module.

    Args:
        files: Python files of the methods (:mod:`polypath.worth.method`). They are executed. All methods are compared
            with the first one.
        source: source of the images, as in ``DataConfig.source``.
        seed: random seed for methods that are trained.
        requests: number of requests of the trace to use, for a trial run. The result lists this as a departure from the
            protocol.

    Raises:
        ValueError: there is no method, a file is not a method or fails, two methods have the same name, images are
            missing, or the folder contains something else.
    """
    if not files:
        raise ValueError("--method: give at least one file")
    check("seed", seed, whole(0))
    most = len(read_trace().budgets)
    count = most if requests is None else check("requests", requests, whole(1, most))
    methods = [open_method(Path(file).absolute()) for file in files]
    names = [method.name for method in methods]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--method: two methods have the name {twice[0]!r}: names must be different")
    folder = Path(out)
    check_own(folder, "bench.json", "bench")
    task = load_task(source)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        check_own(folder, "bench.json", "bench")
        _claim(folder, task)
        parts = [_Part(method, folder, task, source, seed) for method in methods]
        pflop = [part.learn() for part in parts]
        hits = [part.answers() for part in parts]
        timed = _times(folder, parts, source, hits, count)
        result = _result(task, methods, pflop, hits, timed, count, looks(folder))
        save_figure(anytime_figure(result), folder, "figure")
        result.save(folder)
    return result


class _Claim(TypedDict):
    protocol: str
    data: str
    digests: dict[str, str]


def _claim(folder: Path, task: Task) -> None:
    """Check that the folder is for this protocol and these images.

    Raises:
        ValueError: the folder is for another protocol or other images.
    """
    file, mine = folder / "bench.json", _Claim(protocol=VERSION, data=task.name, digests=task.digests)
    if file.is_file():
        before = read(file, _Claim)
        if before["protocol"] != VERSION:
            raise ValueError(f"{folder} contains a bench by the protocol {before['protocol']}: choose another --out")
        if before["digests"] != task.digests:
            raise ValueError(f"{folder} contains a bench on other images, {before['data']}: choose another --out")
    write_json(file, mine)


@dataclass(frozen=True)
class _Part:
    """A part of the bench's folder: the files of one method."""

    method: Method
    out: Path
    task: Task
    source: str
    seed: int

    @property
    def key(self) -> list[str]:
        return [VERSION, self.task.digests["train"], self.task.digests["test"], self.method.digest, f"{self.seed}"]

    @property
    def folder(self) -> Path:
        word = re.sub(r"[^\w.+=-]", "_", self.method.name)
        return self.out / "methods" / word / json_digest(self.key)[:12]

    @property
    def learnt(self) -> Path:
        """The folder that the method may write to and read from. It is empty if the method has no training."""
        return self.folder / "learnt"

    def job(self, **more) -> Job:
        return Job(
            files=[str(self.method.file)],
            folders=[str(self.learnt)],
            source=self.source,
            key=self.key,
            seed=self.seed,
            **more,
        )

    def learn(self) -> float | None:
        """Train the method, unless this has been done already. Return the PFLOP of the training."""
        self.learnt.mkdir(parents=True, exist_ok=True)
        if not self.method.trains:
            return self.method.pflop
        file = self.folder / "train.json"
        if not file.is_file() or read(file, Trained)["key"] != self.key:
            LOG.info("%s: training", self.method.name)
            run_alone(self.job(what="train", out=str(file)))
        return read(file, Trained)["pflop"]

    def answers(self) -> dict[str, NDArray[np.bool_]]:
        """Return which test images each option classifies correctly, by the option's name."""
        file = self.folder / "answers.npz"
        found = load_measured(file, self.key)
        if found is None:
            LOG.info("%s: classifying %s test images", self.method.name, f"{len(self.task.test):,}")
            scored = self.folder / "scored.npz"
            run_alone(self.job(what="score", out=str(scored)))
            if (found := load_measured(scored, self.key)) is None:
                raise ValueError(f"{scored} is damaged; run the same command again to replace it")
            add_looks(self.out, self.method.name, len(found.correct))  # before the file can be read, so all are counted
            os.replace(scored, file)
        return {name: correct.hits for name, correct in found.correct.items()}


def _times(
    out: Path, parts: Sequence[_Part], source: str, hits: Sequence[dict[str, NDArray[np.bool_]]], requests: int
) -> Timed:
    """Measure the times of all options of all methods together."""
    key = [json_digest(part.key) for part in parts] + [json_digest(machine())]
    folder = out / "times" / json_digest(key)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"requests-{first}.json" for first in range(0, requests, BLOCK)]
    needed = [BLOCK] * (requests // BLOCK) + ([requests % BLOCK] if requests % BLOCK else [])
    for file, most in zip(files, needed, strict=True):
        if file.is_file() and (of := read(file, Block)) and (of["key"] != key or len(of["times"]) < most):
            file.unlink()
    if not all(file.is_file() for file in (folder / "profile.json", *files)):
        LOG.info("measuring the times of %d options at %s requests", sum(map(len, hits)), f"{requests:,}")
        run_alone(
            Job(
                what="times",
                files=[str(part.method.file) for part in parts],
                folders=[str(part.learnt) for part in parts],
                source=source,
                out=str(folder),
                key=key,
                requests=requests,
            )
        )
    profile = read(folder / "profile.json", Profile)
    rows = [row for file, most in zip(files, needed, strict=True) for row in read(file, Block)["times"][:most]]
    options = sum(map(len, hits))
    times = Timed(profile["unit_ms"], np.array(profile["times"]), np.array(rows))
    for found in (times.profile, times.requests):
        if found.ndim != 2 or found.shape[1] != options:
            raise ValueError(f"{folder} has times of {found.shape[1:]} options, not of {options}; remove this folder")
    return times


def _result(
    task: Task,
    methods: Sequence[Method],
    pflop: Sequence[float | None],
    hits: Sequence[dict[str, NDArray[np.bool_]]],
    timed: Timed,
    requests: int,
    seen: dict[str, int],
) -> AnytimeResult:
    trace = read_trace(requests)
    chance = 100.0 * (1.0 - 1.0 / len(task.classes))
    rows = compared(
        [list(of) for of in hits],
        [np.stack(list(of.values()), 1) for of in hits],
        timed,
        Asked(trace.budgets, trace.neighbour, asked(trace, len(task.test))),
        chance,
    )
    departures = [] if task.digests == DIGESTS else ["the images are not those of the protocol"]
    if requests < len(read_trace().budgets):
        departures.append(f"the first {requests} of {len(read_trace().budgets):,} requests")
    about = {key: value for key, value in environment(torch.device("cpu")).items() if key not in ("command", "threads")}
    return AnytimeResult(
        protocol=VERSION,
        departures=departures,
        data=task.name,
        note=task.note,
        digests=task.digests,
        images=len(task.test),
        requests=requests,
        unit_ms=round(timed.unit_ms, 5),
        busy=timed.busy,
        methods=[
            MethodResult(name=method.name, digest=method.digest, pflop=spent, **vars(row))
            for method, spent, row in zip(methods, pflop, rows, strict=True)
        ],
        test_evaluations=seen,
        machine=machine(),
        environment=about,
    )
