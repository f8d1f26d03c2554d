"""What the page looks at: paths with their error and their measured time, and something that answers in time."""

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
        name: how people call it, ``branches=1,3``.
        wiring: its network's diagram.
        choice: which operands of which joins it keeps alive.
        error: top-1 error in percent, by which paths are ranked; None where nobody has scored it.
        test_error: on a test split that nothing was chosen by, where there is one.
        macs: multiply-adds of one image (where gates decide, the most that it can need).
        p50_ms, p99_ms: measured here.
        precision: that it runs in; ``f32`` is float32.
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
    """One image's way through the network.

    Attributes:
        path: the name of the path that ran.
        probabilities: ``(classes,)``, sums to 1.
        ms: how long this very answer took, from pixels to probabilities.
        choice: what ran, the loops that gates decided included.
        loops: of gated blocks, in order: the block, how many loops this image took, of how many.
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
        """What runs it: runtime, device, threads."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int: ...

    @property
    def paths(self) -> Mapping[str, PathFacts]:
        """By name; the times are those of now."""
        ...

    @property
    def busy(self) -> bool:
        """Whether the machine was busy while the times were measured, so that they say little."""
        ...

    def measure(self) -> None:
        """Measure the times again, which takes seconds."""
        ...

    def choose(self, budget_ms: float) -> str | None:
        """The name of the most accurate path that is done in time, None where none is."""
        ...

    def run(self, image: bytes, budget_ms: float) -> Run | None:
        """Classify an encoded image, decoded beforehand, within the budget; None where no path is done in time.

        Raises:
            ValueError: no image, or one that cannot be read.
        """
        ...
