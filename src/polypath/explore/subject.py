"""The interface to the network on the page: paths with errors and measured times, and answers within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from polypath.core.wiring import Choice, Wiring


@dataclass(frozen=True, kw_only=True)
class PathFacts:
    """The facts about one path on this machine, for one image.

    Attributes:
        name: the path's name, such as ``branches=1,3``.
        wiring: the diagram of the path's network.
        choice: the choice of operands.
        error: top-1 error in percent, by which the paths are ranked; None if the error was never measured.
        test_error: error on a test split that was used for no choice; None if there is no such error.
        macs: multiply-adds for one image (with gates, the maximum).
        p50_ms, p99_ms: median and 99th percentile of the times measured on this machine.
        precision: the precision in which the path runs; ``f32`` is float32.
    """

    name: str
    wiring: Wiring
    choice: Choice
    error: float | None
    macs: int
    p50_ms: float
    p99_ms: float
    test_error: float | None = None
    precision: str = "f32"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result for one image.

    Attributes:
        path: the name of the path that ran.
        probabilities: ``(classes,)``, with sum 1.
        ms: time of this answer, from pixels to probabilities.
        choice: the choice that ran, including the loops that gates selected.
        loops: for each gated block, in order: the block's name, the number of loops that ran, and the number of loops.
    """

    path: str
    probabilities: np.ndarray
    ms: float
    choice: Choice
    loops: tuple[tuple[str, int, int], ...] = ()


class Subject(Protocol):
    """A network with several paths, whose times are measured on this machine."""

    @property
    def title(self) -> str: ...

    @property
    def machine(self) -> str:
        """Runtime, device and number of cores."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int: ...

    @property
    def paths(self) -> Mapping[str, PathFacts]:
        """The paths by name, with the current times."""
        ...

    @property
    def busy(self) -> bool:
        """Whether the machine was busy while the times were measured, which makes them unreliable."""
        ...

    def measure(self) -> None:
        """Measure the times again, which takes seconds."""
        ...

    def choose(self, budget_ms: float) -> str | None:
        """Return the name of the most accurate path that fits the budget, or None if no path is fast enough."""
        ...

    def run(self, image: bytes, budget_ms: float) -> Run | None:
        """Classify an encoded image within the budget, without its decoding. Return None if no path is fast enough.

        Raises:
            ValueError: ``image`` is not an image, or cannot be read.
        """
        ...
