"""Defines the interface of a model that the service runs, and implements it with a bundle's predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from polypath.data.images import ImageLimits, open_image
from polypath.deploy.decoder import Cancellation, Decoder, most_here

NICENESS = 5  # niceness of the process that decodes large images, so that small images go first

if TYPE_CHECKING:
    from polypath.deploy import AnytimePredictor, BundlePath
    from polypath.deploy.latency import Latencies


class Model(Protocol):
    """The interface of a model that the service runs. Tests pass a model that only sleeps."""

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> Sequence[BundlePath]:
        """The paths, the most accurate first."""
        ...

    @property
    def classes(self) -> Sequence[str]: ...

    def latencies(self, sizes: Sequence[int]) -> Mapping[int, Latencies]:
        """Return how long batches of these sizes take on this machine, by size. The service adds its observed times to
        them."""
        ...

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Run every path once at these batch sizes, and prepare the decoders."""
        ...

    def run(self, path: str, images: np.ndarray) -> np.ndarray:
        """Return probabilities (N, classes) for images (N, …) from :meth:`decode`. Only one thread calls this."""
        ...

    def decode(self, data: bytes, pixels: int, most: int | None = None) -> np.ndarray:
        """Decode an image file to a network input, resized and normalised. Several threads call this method.

        Args:
            most: the largest amount of work to do (:attr:`polypath.data.images.Header.work`). None means the largest
                amount that this process may do.

        Raises:
            ValueError: the data is not an image, is broken, or has more than ``pixels`` pixels.
            LargeImage: decoding needs more work than allowed. If ``most`` is None, use :meth:`decode_apart`.
        """
        ...

    def decode_apart(self, data: bytes, pixels: int, deadline: float, cancellation: Cancellation) -> np.ndarray:
        """Decode an image as :meth:`decode` does, but in another process. The process ends at ``deadline``
        (``time.perf_counter()``).

        Raises:
            ValueError: as for :meth:`decode`.
            DecodingLate: the deadline has passed.
            DecodingCancelled: the image is no longer wanted.
            RuntimeError: the process cannot be started.
        """
        ...

    def renew(self) -> None:
        """Start the process for :meth:`decode_apart`, if it is not running. This method runs in the background."""
        ...


class BundleModel:
    """A model for the service that uses a bundle's predictor."""

    def __init__(self, predictor: AnytimePredictor) -> None:
        from polypath.deploy.bundle import rank

        self.predictor = predictor
        self.name = predictor.bundle.name
        self.classes = predictor.bundle.classes
        self.paths = rank(predictor.bundle.paths)
        self._decoder = Decoder(NICENESS)

    def latencies(self, sizes: Sequence[int]) -> Mapping[int, Latencies]:
        """Return the predictor's times. If they are not in its cache, measure them, for one or two seconds per size."""
        return {size: self.predictor.latencies(size) for size in sizes}

    def warm_up(self, sizes: Sequence[int]) -> None:
        self._decoder.start()
        for size in sizes:  # the decoders are warm: the predictor prepared them when it was made
            self.predictor.warm_up(size)
        self._decoder.ready()

    def run(self, path: str, images: np.ndarray) -> np.ndarray:
        return self.predictor.run_path(path, images)

    def decode(self, data: bytes, pixels: int, most: int | None = None) -> np.ndarray:
        prep, limits = self.predictor.bundle.preparation, ImageLimits(bytes=len(data), pixels=pixels)
        image = open_image(data, limits, most=most_here() if most is None else most)
        return prep.normalised(prep.pixels(image)[None])[0]

    def decode_apart(self, data: bytes, pixels: int, deadline: float, cancellation: Cancellation) -> np.ndarray:
        prep, limits = self.predictor.bundle.preparation, ImageLimits(bytes=len(data), pixels=pixels)
        image, _ = self._decoder.apart(data, prep, limits, deadline, cancellation)
        return prep.normalised(image[None])[0]

    def renew(self) -> None:
        self._decoder.start()
