"""Turns images into network input (resized, normalised), and lists the image files in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from PIL import Image

from polypath.core.deprecation import warn_renamed
from polypath.core.display import printable
from polypath.data.config import Resize
from polypath.data.fit import fit, pixels
from polypath.data.images import LIMITS, SOURCES, ImageLimits, Source, open_image
from polypath.data.listing import EXTENSIONS, images_in
from polypath.storage.decode import decode as decode_json

Side = Annotated[int, Meta(ge=1, le=8192)]


@dataclass(frozen=True)
class Preparation:
    """A description of how to turn an image into network input ``(C, H, W)``.

    Args:
        size: height and width of the network's input.
        mean, std: mean and standard deviation per channel, for pixels in 0 … 1.
        resize: how to resize images of another size; the values are those of ``DataConfig.resize``.
        resize_to: side length before the centre crop to ``size``; None means ``size``.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize = "crop"
    resize_to: int | None = None

    @property
    def channels(self) -> int:
        return len(self.mean)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize an image to the network's input size, and return ``(H, W, C)`` uint8."""
        height, width = self.size
        side = self.resize_to or (height if height == width else None)
        image = fit(image, side, self.resize)
        if image.size != (width, height):
            if self.resize_to is None:
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            else:
                left, top = (image.width - width) // 2, (image.height - height) // 2
                image = image.crop((left, top, left + width, top + height))
        return pixels(image, self.channels).transpose(1, 2, 0)

    def array(
        self, images: Any, limits: ImageLimits = LIMITS, decode: Callable[[Source], np.ndarray] | None = None
    ) -> np.ndarray:
        """Return one image or a sequence of images as ``(N, H, W, C)`` uint8 of the network's input size.

        Args:
            images: a uint8 array ``(N, H, W, C)``; or one or a sequence of uint8 arrays ``(H, W, C)``, PIL images,
                encoded bytes or files.
            limits: limits for the images that are decoded.
            decode: function that returns the pixels, as :meth:`pixels` does, of an image that is not an array. By
                default, :func:`polypath.data.images.open_image` is used.

        Raises:
            ValueError: there are no images, an array has a wrong shape or type, or an image is broken
                (:class:`BrokenImage`).
        """
        if isinstance(images, np.ndarray):
            one = images.ndim != 4
            return self._sized(_checked(images, 3, self.channels)[None] if one else _checked(images, 4, self.channels))
        if isinstance(images, SOURCES):
            images = [images]
        if not isinstance(images, Sequence):
            raise ValueError(
                f"images are of type {type(images).__name__}: give uint8 arrays, PIL images, bytes or files"
            )
        if not images:
            raise ValueError("images is empty: give at least one image")
        if decode is None:
            decode = partial(self._decoded, limits=limits)
        return np.stack([self._one(image, decode) for image in images])

    def prepared(self, images: Any, limits: ImageLimits = LIMITS) -> np.ndarray:
        """Return images, given as for :meth:`array`, as normalised ``(N, C, H, W)`` float32."""
        return self.normalised(self.array(images, limits))

    def _decoded(self, image: Source, limits: ImageLimits) -> np.ndarray:
        return self.pixels(open_image(image, limits))

    def _one(self, image: Any, decode: Callable[[Source], np.ndarray]) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return self._sized(_checked(image, 3, self.channels)[None])[0]
        if isinstance(image, SOURCES):
            return decode(image)
        raise ValueError(f"an image is of type {type(image).__name__}: give uint8 arrays, PIL images, bytes or files")

    def _sized(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == self.size:
            return images
        return np.stack(
            [self.pixels(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)) for image in images]
        )

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """Normalise images ``(N, H, W, C)`` uint8, and return them as ``(N, C, H, W)`` float32."""
        out = np.empty((len(images), self.channels, *self.size), np.float32)
        np.multiply(images.transpose(0, 3, 1, 2), self._scale, out=out)
        out += self._shift
        return out

    @cached_property
    def _scale(self) -> np.ndarray:
        return (1.0 / (255.0 * np.asarray(self.std, np.float64))).astype(np.float32)[:, None, None]

    @cached_property
    def _shift(self) -> np.ndarray:
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (-mean / std).astype(np.float32)[:, None, None]


def _checked(images: np.ndarray, ndim: Literal[3, 4], channels: int) -> np.ndarray:
    wanted = "(N, H, W, C)" if ndim == 4 else "(H, W, C)"
    if images.dtype != np.uint8:
        raise ValueError(f"images are of type {images.dtype}: give uint8 pixels {wanted}, 0 to 255")
    if images.ndim != ndim or images.shape[-1] != channels or 0 in images.shape:
        raise ValueError(f"images are of shape {images.shape}: must be {wanted} with {channels} channels")
    return images


def files_of(places: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the given files and, for folders, the image files in and below them, sorted by name. Hidden files are
    skipped.

    Raises:
        ValueError: a file or folder does not exist, or a folder has no images.
    """
    for place in map(Path, places):
        if not place.is_dir():
            if not os.path.lexists(place):
                raise ValueError(f"{printable(place)}: no such file or folder")
            yield place
            continue
        found = sorted(images_in(place))
        if not found:
            looked_for = ", ".join(sorted(EXTENSIONS))
            raise ValueError(f"{printable(place)}: this folder contains no images (looked for {looked_for})")
        yield from found


@dataclass(frozen=True)
class _Image:
    size: tuple[Side, Side]
    resize: Resize | None = None
    to: Side | None = None


@dataclass(frozen=True)
class _Normalisation:
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Meta(gt=0)], ...]

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) in (1, 3):
            raise ValueError(
                f"normalisation has {len(self.mean)} means and {len(self.std)} std: must be 1 or 3 of each"
            )


def preparation(values: Mapping[str, Any]) -> Preparation:
    """Return the preparation described by the entries ``image`` and ``normalisation`` of a manifest or a config.

    Raises:
        ValueError: an entry is missing, or has the wrong type.
    """
    image = decode_json(values.get("image"), _Image, "image", others=True)
    norm = decode_json(values.get("normalisation"), _Normalisation, "normalisation", others=True)
    return Preparation(image.size, norm.mean, norm.std, image.resize or "crop", image.to)


if not TYPE_CHECKING:  # otherwise a type checker would accept every misspelt name

    def __getattr__(name: str) -> Any:
        if name not in ("read", "decode"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warn_renamed(f"{__name__}.{name}", "polypath.data.images.open_image", 1)
        return open_image
