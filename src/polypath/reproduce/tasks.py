"""The runs that an experiment needs at a scale, by arm, seed and number of epochs, and their measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from polypath.reproduce.experiment import Scale, halved
from polypath.reproduce.images import Images
from polypath.reproduce.measured import Measured
from polypath.reproduce.runs import Run, RunStore


class Task(NamedTuple):
    """A run that an experiment needs. If ``half``, the run has half of the arm's epochs."""

    arm: str
    seed: int
    half: bool
    run: Run

    @property
    def name(self) -> str:
        return f"{word(self.arm)},seed={self.seed}" + (",half" if self.half else "")


class Found(NamedTuple):
    """The runs of an experiment, and each seed's measurements after all epochs and after half of them."""

    tasks: list[Task]
    whole: dict[int, Measured]
    half: dict[int, Measured]


def tasks_of(plan: Scale, seeds: Sequence[int], store: RunStore, images: Images) -> list[Task]:
    """Return all runs that a scale needs, in the order of training."""
    return [
        Task(arm, seed, half, store.run(dataclasses.replace(halved(recipe) if half else recipe, seed=seed), images))
        for seed in seeds
        for half in ((False, True) if plan.both_lengths else (False,))
        for arm, recipe in plan.arms.items()
    ]


def word(arm: str) -> str:
    """Return an arm's name for file names and messages: only letters, digits and the signs ``-+_=``."""
    return "".join(c if c.isalnum() or c in "-+_=" else "_" for c in arm)
