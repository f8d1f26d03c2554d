"""The one way in for images: files, encoded bytes and PIL images become upright images of mode ``L`` or ``RGB``.

Images come from strangers. :func:`probe` reads their header only, so that what is too large is refused before anything
is decoded; metadata are left out (:mod:`polypath.data.bare`), only common formats are tried, and whatever else is wrong
with an image is a :class:`BrokenImage` that says so.
"""

from __future__ import annotations

import importlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from PIL import Image

from polypath.core.display import printable
from polypath.data.bare import Bare, ManyParts, bare
from polypath.data.modes import plain
from polypath.storage.files import read_regular

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
UNTOLD = ("AVIF",)
LEAST_PIXELS = 1024  # that a pass counts for, however small the image
PYTHON_PASSES = 2048  # what a pass counts of a decoder written in Python: that much slower they are
PART = 1000  # what a chunk, a strip or a tile counts of the work: Python goes through them one by one
JPEG_SCAN = b"\xff\xda"
TILE, COMPRESSION, JPEGS = (322, 323), 259, (6, 7)  # tags of a TIFF; compressions that are JPEG's
PLUGINS = {"WEBP": "WebP"}

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image
"""A file by its name, encoded bytes, or a PIL image."""
SOURCES = (bytes, bytearray, memoryview, str, os.PathLike, Image.Image)


class BrokenImage(ValueError):
    """An image that cannot be read; the text says why."""


class LargeImage(Exception):
    """An image that takes more work to decode than was asked for; it may be whole or not.

    Attributes:
        work: as :attr:`Header.work` tells it.
    """

    def __init__(self, work: int) -> None:
        super().__init__(f"{work:,} pixels and bytes to go through")
        self.work = work


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: encoded ``bytes``, and ``pixels`` (width times height).

    ``passes`` bounds the work, see :class:`Header`: that many over the most pixels, more over fewer. Progressive photos
    have about ten.
    """

    bytes: int = 16 * 2**20
    pixels: int = 40_000_000
    passes: int = 16


LIMITS = ImageLimits()
OWN = ImageLimits(bytes=2**30, pixels=178_956_970, passes=2048)
"""For images that one trains on: beyond these pixels Pillow itself refuses."""


@dataclass(frozen=True)
class Header:
    """What the head of an encoded image says; nothing is decoded for it.

    Attributes:
        format: one of ``FORMATS``.
        width, height: in pixels.
        passes: over the pixels while the first frame is decoded: scans of a JPEG, tiles of a TIFF that reach beyond
            it or over each other, more for decoders written in Python. Later frames are neither decoded nor counted.
        bytes: of the file, without metadata.
        parts: that the file is cut into, see :class:`~polypath.data.bare.Bare`.
        mode: Pillow's, of the pixels.
    """

    format: str
    width: int
    height: int
    passes: int
    bytes: int = 0
    parts: int = 0
    mode: str = ""

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def work(self) -> int:
        """Pixels times passes, bytes, parts: about what the time of decoding is proportional to (1 to 40 ns each)."""
        return max(self.pixels, LEAST_PIXELS) * self.passes + self.bytes + PART * self.parts

    @property
    def told(self) -> bool:
        """Whether the header tells the work; some formats hold images of another size, which only a decoder sees."""
        return self.format not in UNTOLD


def probe(data: bytes, limits: ImageLimits = LIMITS) -> Header:
    """The header of an encoded image that is within ``limits``.

    Raises:
        BrokenImage: no image, or one that is too large.
    """
    return _opened(data, limits)[1]


def open_image(source: Source | Exception, limits: ImageLimits = LIMITS, *, most: int | None = None) -> Image.Image:
    """A fully loaded image, upright, of mode ``L`` or ``RGB``; what is transparent lies on white.

    Args:
        source: the image.
        limits: on encoded ones, and on the size of all.
        most: do no more work than this, see :attr:`Header.work`; None is without a bound but that of ``limits``.

    Raises:
        LargeImage: it would be more work, or nothing tells how much.
        BrokenImage: more than ``limits`` allow, no image, a damaged one, pixels of unknown meaning, no regular file;
            the text names the file. An exception in place of an image, from reading it, is raised as this.
    """
    if isinstance(source, Exception):
        raise BrokenImage(str(source))
    if isinstance(source, Image.Image):
        _check_size(source.width, source.height, limits)
        return _loaded(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(bytes(source), limits, most)
    data = file_bytes(source, limits)
    with naming(source):
        return _decoded(data, limits, most)


@contextmanager
def naming(source: Source) -> Iterator[None]:
    """What is wrong with an image is told with its file's name, where it has one."""
    try:
        yield
    except BrokenImage as error:
        if not isinstance(source, str | os.PathLike):
            raise
        raise BrokenImage(f"{printable(os.fspath(source))}: {error}") from None


def file_bytes(file: str | os.PathLike[str], limits: ImageLimits = LIMITS) -> bytes:
    """The bytes of an image file, one more than ``limits`` allow at most.

    Raises:
        BrokenImage: a file that cannot be read or is no regular one; the text names it.
    """
    try:
        return read_regular(Path(file), limits.bytes + 1)
    except OSError as error:
        raise BrokenImage(f"{printable(os.fspath(file))}: {error.strerror or error}") from None


def _decoded(data: bytes, limits: ImageLimits, most: int | None) -> Image.Image:
    image, header = _opened(data, limits, most)
    if most is not None and (header.work > most or not header.told):
        raise LargeImage(header.work)
    return _loaded(image)


def _opened(data: bytes, limits: ImageLimits, most: int | None = None) -> tuple[Image.Image, Header]:
    if len(data) > limits.bytes:
        raise BrokenImage(f"more than the {limits.bytes:,} bytes allowed")
    if not data:
        raise BrokenImage("no bytes")
    name = next((name for name in readable() if _begins(data, name)), None)
    if name is None:
        raise BrokenImage("not an image (or of another format)")
    with _told():
        found = _bare(name, data, limits, most)
        data = found.data
        try:
            image = Image.open(io.BytesIO(data), formats=[name])
        except Image.UnidentifiedImageError:
            cast(Any, Image.OPEN[name][0])(io.BytesIO(data), "")  # the same again, and says why
            raise
    _check_size(image.width, image.height, limits)
    header = Header(name, image.width, image.height, _passes(image, data), len(data), found.parts, image.mode)
    if header.work - header.bytes > limits.passes * max(limits.pixels, LEAST_PIXELS):
        raise BrokenImage(
            f"{image.width}x{image.height} pixels, {header.passes:,} passes over them: too much to decode"
        )
    return image, header


def _bare(name: str, data: bytes, limits: ImageLimits, most: int | None) -> Bare:
    parts = limits.passes * max(limits.pixels, LEAST_PIXELS) // PART
    try:
        return bare(name, data, parts if most is None else min(parts, most // PART))
    except ManyParts:
        if most is not None:
            raise LargeImage(max(most, len(data))) from None
        raise BrokenImage(f"more than {parts:,} parts: too much to decode") from None


def _loaded(image: Image.Image) -> Image.Image:
    with _told():
        return plain(image)


@contextmanager
def _told() -> Iterator[None]:
    """Decoders raise OSError, SyntaxError, struct.error and more on foreign bytes: all are a :class:`BrokenImage`."""
    try:
        yield
    except (BrokenImage, LargeImage):
        raise
    except Exception as error:
        raise BrokenImage(" ".join(str(error).split()).strip(".") or type(error).__name__) from None


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.pixels:
        raise BrokenImage(f"{width}x{height} pixels: more than the {limits.pixels:,} allowed")


@lru_cache(maxsize=1)
def readable() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow has. Only their plugins are imported: others would start Ghostscript."""
    for name in FORMATS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{PLUGINS.get(name, name.capitalize())}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _begins(data: bytes, name: str) -> bool:
    accept = Image.OPEN[name][1]
    return accept is not None and accept(data[:16]) is True  # a text says what this Pillow lacks


def _passes(image: Image.Image, data: bytes) -> int:
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] in Image.DECODERS:
        return PYTHON_PASSES
    if image.format == "TIFF":
        return _tiff_passes(image, data)
    return max(1, data.count(JPEG_SCAN)) if image.format == "JPEG" else 1


def _tiff_passes(image: Image.Image, data: bytes) -> int:
    """Tiles are decoded whole, and may be far larger than the image; each may be a JPEG of its own, with its scans.
    Strips may lie over each other."""
    tags = cast(Any, image).tag_v2
    width, height = (int(tags.get(tag, side)) for tag, side in zip(TILE, image.size, strict=True))
    across, down = -(-image.width // max(1, width)), -(-image.height // max(1, height))
    covered = width * height * max(across * down, data.count(JPEG_SCAN) if tags.get(COMPRESSION) in JPEGS else 0)
    laid = sum((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in cast(Any, image).tile)
    return max(1, math.ceil(max(covered, laid) / (image.width * image.height)))
