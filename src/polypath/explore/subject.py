"""The interface to the network on the page: its paths with error and measured time, and answers within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from polypath.core.wiring import Choice, Wiring


@dataclass(frozen=True, kw_only=True)
class PathFacts:
    """One path on this machine, for one image.

    Attributes:
        name: its name, such as ``branches=1,3``.
        wiring: the diagram of its network.
        choice: the choice of operands.
        error: top-1 error in percent, by which the paths are ranked; None if it was never measured.
        test_error: error on a test split that was used for no choice, if there is one.
        macs: multiply-adds of one image (with gates, the maximum).
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
        ms: how long this answer took, from pixels to probabilities.
        choice: the choice that ran, including the loops that gates selected.
        loops: for each gated block in order: its name, how many loops this image ran, and how many there are.
    """

    path: str
    probabilities: np.ndarray
    ms: float
    choice: Choice
    loops: tuple[tuple[str, int, int], ...] = ()


class Subject(Protocol):
    """A network with several paths, on this machine."""

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
        """Return the name of the most accurate path within the budget, or None."""
        ...

    def run(self, image: bytes, budget_ms: float) -> Run | None:
        """Classify an encoded image within the budget, not counting its decoding; None if no path is fast enough.

        Raises:
            ValueError: ``image`` is not an image, or cannot be read.
        """
        ...
