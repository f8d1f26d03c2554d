"""Runs the steps of a bundle's ladder in a runtime, and estimates their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import median

import numpy as np

from polypath.core.wiring import INPUT
from polypath.deploy.bundle import Bundle
from polypath.deploy.latency import Latencies
from polypath.deploy.latency_profile import bucket
from polypath.deploy.manifest import Step
from polypath.deploy.runtimes import Runtime

RUNS = 5  # number of runs of each step and of its path from which the step's time is estimated


class Climber:
    """An object that runs the steps of a bundle's ladder in a runtime, and estimates their times.

    A step's estimated times are the times of its path, scaled by the ratio of the two times in a few runs. Measuring
    each step for as long as a path would double the wait for the first answer.

    Args:
        whole: function that runs a complete path, records its time, and returns probabilities.
        checked: function that turns a path's logits for a number of images into probabilities.
        example: function that makes images for a batch size.
        paths: function that returns the times of the paths at a batch size.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        whole: Callable[[str, np.ndarray], np.ndarray],
        checked: Callable[[str, np.ndarray, int], np.ndarray],
        example: Callable[[int], np.ndarray],
        paths: Callable[[int], Latencies],
    ) -> None:
        self._bundle, self._runtime = bundle, runtime
        self._whole, self._checked, self._example, self._paths = whole, checked, example, paths
        self._latencies: dict[int, Latencies] = {}
        self._warm: set[tuple[int, int]] = set()  # steps and batch sizes that have run

    @cached_property
    def steps(self) -> tuple[Step | None, ...]:
        """The ladder's steps; None for a step that runs its complete path."""
        return tuple(self._runtime.steps)

    def begin(self, x: np.ndarray) -> Climb:
        """Start at the bottom of the ladder with images ``(N, C, H, W)``."""
        return Climb(self.steps, x)

    def run(self, climb: Climb, index: int, most: int | None = None) -> np.ndarray:
        """Run a step, record its time, and return probabilities ``(N, classes)``.

        Args:
            most: if the runtime compiles a graph for each batch size, the batch is padded to a power of two, but at
                most to ``most``.
        """
        step, name, n = climb.steps[index], self._bundle.ladder[index].path, len(climb.images)
        size = n if most is None or not self._runtime.per_batch else min(bucket(n), most)
        if step is None:
            probabilities = self._whole(name, _filled(climb.images, size))[:n]
            climb.leave(index, ())
            return probabilities
        inputs = [_filled(value, size) for value in climb.inputs(step)]
        run, start = self._runtime.prepare_step(index, size), time.perf_counter()
        logits, *left = run(*inputs)
        probabilities = self._checked(name, logits, size)[:n]
        end, cold = time.perf_counter(), (index, size) not in self._warm
        self._warm.add((index, size))
        if not cold and (latencies := self._latencies.get(bucket(size))) is not None:
            latencies.observe(name, 1e3 * (end - start), end, full=size == bucket(size))
        climb.leave(index, [value[:n] for value in left])
        return probabilities

    def warm_up(self, batch: int) -> bool:
        """Run all steps on a batch of this size if any step has not run at this size. Return whether the steps ran."""
        cold = [i for i, step in enumerate(self.steps) if step is not None and (i, batch) not in self._warm]
        if cold:
            self._timed(self._example(batch))
        return bool(cold)

    def latencies(self, index: int, batch: int) -> Latencies:
        """Return a step's estimated times, by path, at the smallest known batch size that is large enough."""
        if self.steps[index] is None:
            return self._paths(batch)
        known = [size for size in self._latencies if size >= bucket(batch)]
        return self._latencies[min(known)] if known else self.measure(batch)

    def measure(self, batch: int) -> Latencies:
        """Return the estimated times of the steps that do not run their complete path. Unknown times are measured."""
        size = bucket(batch)
        if size not in self._latencies:
            paths, x = self._paths(size), self._example(size)
            runs = [self._timed(x) for _ in range(1 + RUNS)][1:]  # the first run is slow
            times: dict[str, list[float]] = {}
            for name in runs[0]:
                share = min(1.0, median(run[name][0] / run[name][1] for run in runs))
                times[name] = [share * ms for ms in paths.paths[name].samples()]
            self._latencies[size] = Latencies(times, time.perf_counter(), paths.origin)
        return self._latencies[size]

    def _timed(self, x: np.ndarray) -> dict[str, tuple[float, float]]:
        """Run each step after its complete path, and return by path the seconds of the step and of the path."""
        climb, found = self.begin(x), dict[str, tuple[float, float]]()
        for i, (step, rung) in enumerate(zip(self.steps, self._bundle.ladder, strict=False)):
            if step is not None:
                start = time.perf_counter()
                self._whole(rung.path, x)
                between = time.perf_counter()
                self.run(climb, i)
                found[rung.path] = time.perf_counter() - between, between - start
        return found


class Climb:
    """A batch that runs through the ladder. The value that a step leaves is stored until its last reader has run.

    Args:
        steps: the steps of the ladder, in order.
        x: images ``(N, C, H, W)``.
    """

    def __init__(self, steps: Sequence[Step | None], x: np.ndarray) -> None:
        self.steps, self.held = tuple(steps), {INPUT: x}

    @property
    def images(self) -> np.ndarray:
        return self.held[INPUT]

    def inputs(self, step: Step) -> list[np.ndarray]:
        return [self.held[slot] for slot in step.reads]

    def leave(self, index: int, values: Sequence[np.ndarray]) -> None:
        """Store the values that step ``index`` leaves, and free those that no later step reads."""
        step = self.steps[index]
        if step is not None:
            self.held |= dict(zip(step.leaves, values, strict=True))
        read = {INPUT, *(slot for later in self.steps[index + 1 :] if later is not None for slot in later.reads)}
        self.held = {slot: value for slot, value in self.held.items() if slot in read}

    def keep(self, rows: np.ndarray) -> None:
        """Keep only the images that a mask ``(N,)`` selects."""
        self.held = {slot: np.ascontiguousarray(value[rows]) for slot, value in self.held.items()}


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    """Return ``x``, padded with zeros to a batch of ``size``."""
    return x if size == len(x) else np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
