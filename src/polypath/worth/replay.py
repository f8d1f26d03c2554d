"""Measures times under a trace: every task runs at every request, with or without a neighbour process.

At each request, all tasks run beside the same neighbour at almost the same time. So the result of any rule that chooses
among the tasks can be computed from these times (:mod:`polypath.analysis.deadline`).
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPIN = """
import os, select
while told := os.read(0, 1):
    while told == b"1" and not select.select([0], [], [], 0)[0]:
        sum(range(10000))
"""
Wake = Callable[[bool], None]


def timed(task: Callable[[Any], Any], value: Any) -> float:
    """Return the milliseconds that ``task(value)`` takes."""
    start = time.perf_counter()
    task(value)
    return 1e3 * (time.perf_counter() - start)


def replay(
    tasks: Sequence[Callable[[Any], Any]], values: Sequence[Any], busy: Sequence[bool], wake: Wake, block: int = 1
) -> NDArray[np.float64]:
    """Run every task on every value, alternately. Return milliseconds ``(requests, tasks)``.

    Each block of requests starts with another task, so that no task is always the first one after a pause.

    Args:
        values: the value of each request.
        busy: for each request, whether the neighbour computes.
        wake: function that starts and stops the neighbour.
        block: number of successive requests that one task answers before the next task answers the same requests. With
            1, each task finds the processor's cache filled by the other tasks.
    """
    times = np.empty((len(values), len(tasks)))
    for turn, first in enumerate(range(0, len(values), block)):
        for j in range(len(tasks)):
            task = (turn + j) % len(tasks)
            for i in range(first, min(first + block, len(values))):
                wake(bool(busy[i]))
                times[i, task] = timed(tasks[task], values[i])
    return times


@contextlib.contextmanager
def neighbour(programs: int = 1) -> Iterator[Wake]:
    """Start programs that compute on this process's cores while they are awake. They end when the block ends."""
    running = [subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE) for _ in range(programs)]
    awake = False

    def wake(on: bool) -> None:
        nonlocal awake
        if on != awake:
            for program in running:
                assert program.stdin is not None
                program.stdin.write(b"1" if on else b"0")
                program.stdin.flush()
            awake = on
            time.sleep(0.01)  # time for the scheduler to react

    try:
        yield wake
    finally:
        for program in running:
            program.communicate()  # closes the program's standard input, which ends the program


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Turn off garbage collection in the block, since its time would be counted as a task's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
