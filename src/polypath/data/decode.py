"""Decode all images of a split to uint8 pixels, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polypath.data.config import Resize
from polypath.data.fit import fit, pixels
from polypath.data.images import OWN, BrokenImage, open_image
from polypath.profiling.cores import cores

CHUNK = 64  # images that a thread decodes at once
MOST_NAMED = 5  # an error lists at most this many broken images
Raw = bytes | Image.Image | Exception
"""An encoded image, a PIL image that was never encoded, or the error that was raised while reading the image."""
Progress = Callable[[str, int, int], None]
"""A function that is called as ``progress(split, images done, images in all)``."""


class Encoded(Protocol):
    """A table of encoded images, one in each row."""

    @property
    def split(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[Raw]:
        """Read the images of these rows."""
        ...

    def name(self, row: int) -> str:
        """Return the file name or the row number of an image, for messages."""
        ...


@dataclass(frozen=True)
class Decoded:
    """The pixels of a split: ``images`` (N, C, H, W) uint8, and the ``rows`` (N,) of these images in the split.

    ``skipped`` lists the images that could not be read, with reasons. ``format`` is the format of the first image
    (``JPEG``, ``PNG``, …).
    """

    images: Tensor
    rows: Tensor
    skipped: tuple[str, ...] = ()
    format: str = ""


def decode_all(
    encoded: Encoded,
    *,
    size: int | None,
    resize: Resize,
    channels: int | None,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode a complete split.

    Args:
        encoded: the images of the split.
        size, resize: see :func:`fit`.
        channels: number of channels, 1 or 3. None uses 1 if all images are grey, else 3.
        skip_broken: leave out images that cannot be read, instead of raising an error.
        progress: called after each chunk of images.

    Raises:
        ValueError: images are broken (unless skipped), ``size`` is None but sizes differ, or no image can be read.
    """
    chunks, rows, broken, kind = [], [], [], ""
    done = 0
    for chunk in _chunks(encoded, size, resize, channels):
        good = [(row, array) for row, array in chunk.images if isinstance(array, np.ndarray)]
        broken += [f"{encoded.name(row)} ({error})" for row, error in chunk.images if isinstance(error, BrokenImage)]
        kind = kind or chunk.format
        done += len(chunk.images)
        if good:
            rows += [row for row, _ in good]
            chunks.append(_stack(encoded, good, chunks[0].shape[-2:] if chunks else good[0][1].shape[-2:]))
        if progress:
            progress(encoded.split, done, len(encoded))
    if broken and not skip_broken:
        raise ValueError(broken_message(encoded.split, len(encoded), broken))
    if not rows:
        raise ValueError(f"split {encoded.split!r} has no image that can be read")
    wide = max(c.shape[1] for c in chunks)
    images = np.concatenate([c if c.shape[1] == wide else np.repeat(c, wide, axis=1) for c in chunks])
    return Decoded(torch.from_numpy(images), torch.tensor(rows), tuple(broken), kind)


def broken_message(split: str, total: int, broken: Sequence[str]) -> str:
    """Return the error message for images that cannot be read."""
    more = f" and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
    return (
        f"{len(broken)} of {total} images of split {split!r} cannot be read: {', '.join(broken[:MOST_NAMED])}{more}; "
        f"repair or remove them, or leave them out with broken='skip' (--data.broken skip)"
    )


@dataclass
class _Chunk:
    images: list[tuple[int, np.ndarray | BrokenImage]]
    format: str


def _chunks(encoded: Encoded, size: int | None, resize: Resize, channels: int | None) -> Iterator[_Chunk]:
    """Yield decoded chunks in order. A few chunks are decoded ahead in threads, since the decoders release the GIL."""

    def work(start: int) -> _Chunk:
        rows = range(start, min(start + CHUNK, len(encoded)))
        images, kind = [], ""
        for row, data in zip(rows, encoded.read(rows), strict=True):
            try:
                image = open_image(data, OWN)
                kind = kind or image.format or ""
                images.append((row, pixels(fit(image, size, resize), channels)))
            except BrokenImage as error:
                images.append((row, error))
        return _Chunk(images, kind)

    threads = min(cores(), 16)
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, len(encoded), CHUNK)
        ahead = [pool.submit(work, start) for start in starts[: 4 * threads]]
        try:
            for i in range(len(starts)):
                if i + len(ahead) < len(starts):
                    ahead.append(pool.submit(work, starts[i + len(ahead)]))
                yield ahead.pop(0).result()
        finally:
            for future in ahead:
                future.cancel()


def _stack(encoded: Encoded, good: Sequence[tuple[int, np.ndarray]], size: tuple[int, ...]) -> np.ndarray:
    for row, array in good:
        if array.shape[-2:] != size:
            raise ValueError(
                f"DataConfig.size = None: images of split {encoded.split!r} differ in size ({encoded.name(row)} has "
                f"{array.shape[-2]}x{array.shape[-1]} pixels, another image {size[0]}x{size[1]}); set a size"
            )
    wide = max(array.shape[0] for _, array in good)
    return np.stack([np.broadcast_to(array, (wide, *size)) for _, array in good])
