"""What the service runs: the bundle's predictor, behind the few members that the service needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from polypath.deploy import AnytimePredictor

Profile = dict[int, dict[str, tuple[float, float]]]
"""Batch size → path → (p50, p99) in seconds."""


@dataclass(frozen=True)
class PathFacts:
    """What a client is told about a path. ``error`` is top-1 error in percent on the bundle's held-out images, None
    where it was never scored."""

    name: str
    text: str
    error: float | None
    macs: int


class Model(Protocol):
    """Everything that the service asks of a network; tests pass one that sleeps."""

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> Sequence[PathFacts]:
        """The most accurate first."""
        ...

    @property
    def classes(self) -> Sequence[str]: ...

    def profile(self, sizes: Sequence[int]) -> Profile:
        """How long batches of these sizes take here."""
        ...

    def run(self, path: str, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) of decoded images (N, …); called by one thread only."""
        ...

    def decode(self, data: bytes, pixels: int) -> np.ndarray:
        """An image file as the network takes it; called by several threads.

        Raises:
            ValueError: no image, a broken one, or one of more than ``pixels`` pixels.
        """
        ...


class BundleModel:
    """A bundle's predictor as the service sees it."""

    def __init__(self, predictor: AnytimePredictor) -> None:
        from polypath.deploy.bundle import rank

        self.predictor = predictor
        self.name = predictor.bundle.name
        self.classes = predictor.bundle.classes
        self.paths = [PathFacts(path.name, path.text, path.error, path.macs) for path in rank(predictor.bundle.paths)]

    def profile(self, sizes: Sequence[int]) -> Profile:
        """From the predictor's cache where it has been measured before; else a second or two for each size."""
        return {
            size: {name: (t.p50 / 1000, t.p99 / 1000) for name, t in self.predictor.profile(size).items()}
            for size in sizes
        }

    def run(self, path: str, images: np.ndarray) -> np.ndarray:
        return self.predictor.predict(images, path=path).probabilities

    def decode(self, data: bytes, pixels: int) -> np.ndarray:
        from polypath.deploy.images import Limits

        return self.predictor.bundle.preparation.array([data], Limits(bytes=len(data), pixels=pixels))[0]
