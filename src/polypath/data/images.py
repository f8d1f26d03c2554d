"""Opens all images: files, encoded bytes and PIL images become upright images of mode ``L`` or ``RGB``.

Images are untrusted. :func:`probe` reads only their header, so images that are too large are rejected before decoding.
Metadata is removed (:mod:`polypath.data.bare`) and only common formats are tried. Any other problem with an image
raises :class:`BrokenImage` with the reason.
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
LEAST_PIXELS = 1024  # a pass over a smaller image counts as this many pixels
PYTHON_PASSES = 2048  # passes that a decoder written in Python counts as, since it is so much slower
PART = 1000  # work of a chunk, a strip or a tile, which Pillow reads one by one in Python
JPEG_SCAN = b"\xff\xda"
TILE, COMPRESSION, JPEGS = (322, 323), 259, (6, 7)  # tags of a TIFF; JPEG's compression numbers
PLUGINS = {"WEBP": "WebP"}

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image
"""A file's path, encoded bytes, or a PIL image."""
SOURCES = (bytes, bytearray, memoryview, str, os.PathLike, Image.Image)


class BrokenImage(ValueError):
    """An image that cannot be read; the message gives the reason."""


class LargeImage(Exception):
    """An image that takes more work to decode than the caller allows; it may be damaged or not.

    Attributes:
        work: see :attr:`Header.work`.
    """

    def __init__(self, work: int) -> None:
        super().__init__(f"{work:,} pixels and bytes to process")
        self.work = work


@dataclass(frozen=True)
class ImageLimits:
    """The largest image to decode: encoded ``bytes``, and ``pixels`` (width times height).

    ``passes`` bounds the work, see :class:`Header`: it is the number of passes allowed over the largest image; smaller
    images may have more. Progressive photos have about ten.
    """

    bytes: int = 16 * 2**20
    pixels: int = 40_000_000
    passes: int = 16


LIMITS = ImageLimits()
OWN = ImageLimits(bytes=2**30, pixels=178_956_970, passes=2048)
"""For training images; Pillow itself refuses more pixels."""


@dataclass(frozen=True)
class Header:
    """Header of an encoded image, read without decoding.

    Attributes:
        format: one of ``FORMATS``.
        width, height: in pixels.
        passes: passes over the pixels to decode the first frame: a JPEG's scans, a TIFF's tiles that overlap or exceed
            the image; more for decoders written in Python. Later frames are neither decoded nor counted.
        bytes: size of the file without metadata.
        parts: number of parts of the file, see :class:`~polypath.data.bare.Bare`.
        mode: Pillow's mode of the pixels.
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
        """Work to decode: pixels times passes, plus bytes and parts. Each unit takes about 1 to 40 ns."""
        return max(self.pixels, LEAST_PIXELS) * self.passes + self.bytes + PART * self.parts

    @property
    def told(self) -> bool:
        """Whether the header shows the work; in some formats only the decoder learns the true image size."""
        return self.format not in UNTOLD


def probe(data: bytes, limits: ImageLimits = LIMITS) -> Header:
    """The header of an encoded image within ``limits``.

    Raises:
        BrokenImage: not an image, or too large.
    """
    return _opened(data, limits)[1]


def open_image(source: Source | Exception, limits: ImageLimits = LIMITS, *, most: int | None = None) -> Image.Image:
    """A fully loaded image, upright, of mode ``L`` or ``RGB``, with transparent pixels blended onto white.

    Args:
        source: the image, or the exception raised while reading it.
        limits: limits of encoded images; the pixel limit also applies to PIL images.
        most: the most work to do, see :attr:`Header.work`; None is bounded by ``limits`` only.

    Raises:
        LargeImage: decoding takes more work than ``most``, or the header does not show how much.
        BrokenImage: beyond ``limits``, not an image, damaged, pixels of unknown meaning, or not a regular file; the
            message names the file. Also raised with the text of an exception given as ``source``.
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
    """Prefix the message of a :class:`BrokenImage` with the file's name, if ``source`` is a file."""
    try:
        yield
    except BrokenImage as error:
        if not isinstance(source, str | os.PathLike):
            raise
        raise BrokenImage(f"{printable(os.fspath(source))}: {error}") from None


def file_bytes(file: str | os.PathLike[str], limits: ImageLimits = LIMITS) -> bytes:
    """The bytes of an image file, at most one more than ``limits`` allow.

    Raises:
        BrokenImage: a file that cannot be read or is not a regular file; the message names it.
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
        raise BrokenImage("not an image, or an unsupported format")
    with _told():
        found = _bare(name, data, limits, most)
        data = found.data
        try:
            image = Image.open(io.BytesIO(data), formats=[name])
        except Image.UnidentifiedImageError:
            cast(Any, Image.OPEN[name][0])(io.BytesIO(data), "")  # fails again, but with the reason
            raise
    _check_size(image.width, image.height, limits)
    header = Header(name, image.width, image.height, _passes(image, data), len(data), found.parts, image.mode)
    if header.work - header.bytes > limits.passes * max(limits.pixels, LEAST_PIXELS):
        raise BrokenImage(
            f"{image.width}x{image.height} pixels, {header.passes:,} passes over them: too much work to decode"
        )
    return image, header


def _bare(name: str, data: bytes, limits: ImageLimits, most: int | None) -> Bare:
    parts = limits.passes * max(limits.pixels, LEAST_PIXELS) // PART
    try:
        return bare(name, data, parts if most is None else min(parts, most // PART))
    except ManyParts:
        if most is not None:
            raise LargeImage(max(most, len(data))) from None
        raise BrokenImage(f"more than {parts:,} parts: too much work to decode") from None


def _loaded(image: Image.Image) -> Image.Image:
    with _told():
        return plain(image)


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of decoders (OSError, SyntaxError, struct.error and more) into :class:`BrokenImage`."""
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
    """The ``FORMATS`` that this Pillow supports. Only their plugins are imported: others could start Ghostscript."""
    for name in FORMATS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{PLUGINS.get(name, name.capitalize())}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _begins(data: bytes, name: str) -> bool:
    accept = Image.OPEN[name][1]
    return accept is not None and accept(data[:16]) is True  # a str reports that this Pillow lacks the decoder


def _passes(image: Image.Image, data: bytes) -> int:
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] in Image.DECODERS:
        return PYTHON_PASSES
    if image.format == "TIFF":
        return _tiff_passes(image, data)
    return max(1, data.count(JPEG_SCAN)) if image.format == "JPEG" else 1


def _tiff_passes(image: Image.Image, data: bytes) -> int:
    """Passes over a TIFF. Tiles are decoded completely and may be far larger than the image; each may be a JPEG with
    several scans. Strips may overlap."""
    tags = cast(Any, image).tag_v2
    width, height = (int(tags.get(tag, side)) for tag, side in zip(TILE, image.size, strict=True))
    across, down = -(-image.width // max(1, width)), -(-image.height // max(1, height))
    covered = width * height * max(across * down, data.count(JPEG_SCAN) if tags.get(COMPRESSION) in JPEGS else 0)
    laid = sum((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in cast(Any, image).tile)
    return max(1, math.ceil(max(covered, laid) / (image.width * image.height)))
