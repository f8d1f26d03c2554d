"""Open images: files, encoded bytes and PIL images become upright images of mode ``L`` or ``RGB``.

Images are untrusted. :func:`probe` reads only the header, so images that are too large are rejected before they are
decoded. Metadata is removed (:mod:`polypath.data.bare`), and only common formats are tried. If an image cannot be read,
:class:`BrokenImage` is raised with the reason.
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
PYTHON_PASSES = 2048  # a slow decoder that is written in Python counts as this many passes
PART = 1000  # work of one chunk, strip or tile, since Pillow reads each of them in Python
JPEG_SCAN = b"\xff\xda"
TILE, COMPRESSION, JPEGS = (322, 323), 259, (6, 7)  # tags of a TIFF, and the compression numbers of JPEG
PLUGINS = {"WEBP": "WebP"}

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image
"""A file's path, encoded bytes, or a PIL image."""
SOURCES = (bytes, bytearray, memoryview, str, os.PathLike, Image.Image)


class BrokenImage(ValueError):
    """Raised if an image cannot be read. The message gives the reason."""


class LargeImage(Exception):
    """Raised if decoding an image takes more work than the caller allows. The image may also be damaged.

    Attributes:
        work: see :attr:`Header.work`.
    """

    def __init__(self, work: int) -> None:
        super().__init__(f"decoding would process {work:,} pixels and bytes, which is more than allowed")
        self.work = work


@dataclass(frozen=True)
class ImageLimits:
    """The limits of images to decode: the encoded size in ``bytes``, and the number of ``pixels`` (width times height).

    ``passes`` limits the work, see :class:`Header`. It is the number of passes allowed over an image of ``pixels``
    pixels; for smaller images, more passes are allowed. Progressive photos have about ten passes.
    """

    bytes: int = 16 * 2**20
    pixels: int = 40_000_000
    passes: int = 16


LIMITS = ImageLimits()
OWN = ImageLimits(bytes=2**30, pixels=178_956_970, passes=2048)
"""Limits for training images. Pillow itself refuses images with more pixels."""


@dataclass(frozen=True)
class Header:
    """The header of an encoded image, which is read without decoding the image.

    Attributes:
        format: one of ``FORMATS``.
        width, height: size in pixels.
        passes: number of passes over the pixels to decode the first frame. A JPEG may have several scans, and the tiles
            of a TIFF may overlap or exceed the image. A slow decoder that is written in Python counts as
            ``PYTHON_PASSES``. Later frames are neither decoded nor counted.
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
        """The work to decode the image: pixels times passes, plus bytes, plus a constant for each part. One unit takes
        about 1 to 40 ns."""
        return max(self.pixels, LEAST_PIXELS) * self.passes + self.bytes + PART * self.parts

    @property
    def told(self) -> bool:
        """Whether the work is known from the header. In some formats, the true image size is found only by decoding."""
        return self.format not in UNTOLD


def probe(data: bytes, limits: ImageLimits = LIMITS) -> Header:
    """Read the header of an encoded image, which must be within ``limits``.

    Raises:
        BrokenImage: ``data`` is not an image, or is too large.
    """
    return _opened(data, limits)[1]


def open_image(source: Source | Exception, limits: ImageLimits = LIMITS, *, most: int | None = None) -> Image.Image:
    """Load an image completely, as mode ``L`` or ``RGB``, upright, and with transparent pixels blended onto white.

    Args:
        source: the image, or the exception that was raised while reading it.
        limits: limits of encoded images; the pixel limit also applies to PIL images.
        most: the most work to do, see :attr:`Header.work`. If None, only ``limits`` apply.

    Raises:
        LargeImage: decoding takes more work than ``most``, or the work is not known from the header.
        BrokenImage: the source is beyond ``limits``, damaged, not an image, or not a regular file, or its pixels have
            an unknown meaning. The message contains the name of the file. If ``source`` is an exception, the message
            is the text of the exception.
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
    """Read the bytes of an image file, at most one byte more than ``limits`` allow.

    Raises:
        BrokenImage: the file cannot be read or is not a regular file. The message contains the name of the file.
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
        raise BrokenImage(f"the image has more than the {limits.bytes:,} bytes allowed")
    if not data:
        raise BrokenImage("the image has no bytes")
    name = next((name for name in readable() if _begins(data, name)), None)
    if name is None:
        raise BrokenImage("this is not an image, or its format is not supported")
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
        raise BrokenImage(f"decoding {image.width}x{image.height} pixels in {header.passes:,} passes is too much work")
    return image, header


def _bare(name: str, data: bytes, limits: ImageLimits, most: int | None) -> Bare:
    parts = limits.passes * max(limits.pixels, LEAST_PIXELS) // PART
    try:
        return bare(name, data, parts if most is None else min(parts, most // PART))
    except ManyParts:
        if most is not None:
            raise LargeImage(max(most, len(data))) from None
        raise BrokenImage(f"decoding more than {parts:,} parts is too much work") from None


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
        raise BrokenImage(f"the image has {width}x{height} pixels, more than the {limits.pixels:,} allowed")


@lru_cache(maxsize=1)
def readable() -> tuple[str, ...]:
    """List the ``FORMATS`` that the installed Pillow supports. Only the plugins of these formats are imported, since
    other plugins could start Ghostscript."""
    for name in FORMATS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{PLUGINS.get(name, name.capitalize())}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _begins(data: bytes, name: str) -> bool:
    accept = Image.OPEN[name][1]
    return accept is not None and accept(data[:16]) is True  # if this Pillow lacks the decoder, accept returns a str


def _passes(image: Image.Image, data: bytes) -> int:
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] in Image.DECODERS:
        return PYTHON_PASSES
    if image.format == "TIFF":
        return _tiff_passes(image, data)
    return max(1, data.count(JPEG_SCAN)) if image.format == "JPEG" else 1


def _tiff_passes(image: Image.Image, data: bytes) -> int:
    """Count the passes over a TIFF. Tiles are decoded completely and may be far larger than the image. Each tile may be
    a JPEG with several scans. Strips may overlap."""
    tags = cast(Any, image).tag_v2
    width, height = (int(tags.get(tag, side)) for tag, side in zip(TILE, image.size, strict=True))
    across, down = -(-image.width // max(1, width)), -(-image.height // max(1, height))
    covered = width * height * max(across * down, data.count(JPEG_SCAN) if tags.get(COMPRESSION) in JPEGS else 0)
    laid = sum((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in cast(Any, image).tile)
    return max(1, math.ceil(max(covered, laid) / (image.width * image.height)))
