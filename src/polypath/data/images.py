"""The one way in for images: files, encoded bytes and PIL images become upright images of mode ``L`` or ``RGB``.

Images come from strangers. :func:`probe` reads their header only, so that what is too large is refused before anything
is decoded; only common formats are tried, and whatever else is wrong with an image is a :class:`BrokenImage` that says
so.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image

from polypath.core.display import printable
from polypath.data.modes import plain
from polypath.storage.files import read_regular

T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
UNTOLD = ("AVIF",)
LEAST_PIXELS = 1024  # that a pass counts for, however small the image
PYTHON_PASSES = 2048  # what a pass counts of a decoder written in Python: that much slower they are
PNG, JPEG_SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xda"
TILE, COMPRESSION, JPEGS = (322, 323), 259, (6, 7)  # tags of a TIFF; compressions that are JPEG's
PLUGINS = {"WEBP": "WebP"}
CRITICAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
"""Chunks of a PNG that say something about its pixels."""

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
        format: one of ``FORMATS``, or ``MPO`` (a JPEG that holds several).
        width, height: in pixels.
        passes: over the pixels while the first frame is decoded: scans of a JPEG, tiles of a TIFF that reach beyond
            it, more for decoders written in Python. Later frames are neither decoded nor counted.
        bytes: of the file.
    """

    format: str
    width: int
    height: int
    passes: int
    bytes: int = 0

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def work(self) -> int:
        """Pixels times passes, and the bytes: about what the time of decoding is proportional to (1 to 40 ns each)."""
        return max(self.pixels, LEAST_PIXELS) * self.passes + self.bytes

    @property
    def told(self) -> bool:
        """Whether the header tells the work; some formats hold images of another size, which only a decoder sees."""
        return self.format not in UNTOLD


def probe(data: bytes, limits: ImageLimits = LIMITS) -> Header:
    """The header of an encoded image that is within ``limits``.

    Raises:
        BrokenImage: no image, or one that is too large.
    """
    return _in_spite_of_extras(lambda bare: _opened(bare, limits)[1], data)


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
    def work(bare: bytes) -> Image.Image:
        image, header = _opened(bare, limits)
        if most is not None and (header.work > most or not header.told):
            raise LargeImage(header.work)
        return _loaded(image)

    return _in_spite_of_extras(work, data)


def _in_spite_of_extras(work: Callable[[bytes], T], data: bytes) -> T:
    """``work(data)``; where that fails, without what only describes the image."""
    try:
        return work(data)
    except BrokenImage:
        if (bare := _without_extras(data)) is None:
            raise
    return work(bare)


def _opened(data: bytes, limits: ImageLimits) -> tuple[Image.Image, Header]:
    if len(data) > limits.bytes:
        raise BrokenImage(f"more than the {limits.bytes:,} bytes allowed")
    if not data:
        raise BrokenImage("no bytes")
    name = next((name for name in _readable() if _begins(data, name)), None)
    if name is None:
        raise BrokenImage("not an image (or of another format)")
    with _told():
        try:
            image = Image.open(io.BytesIO(data), formats=[name])
        except Image.UnidentifiedImageError:
            cast(Any, Image.OPEN[name][0])(io.BytesIO(data), "")  # the same again, and says why
            raise
    _check_size(image.width, image.height, limits)
    header = Header(image.format or name, image.width, image.height, _passes(image, data), len(data))
    if header.work - header.bytes > limits.passes * max(limits.pixels, LEAST_PIXELS):
        raise BrokenImage(
            f"{image.width}x{image.height} pixels, {header.passes:,} passes over them: too much to decode"
        )
    return image, header


def _loaded(image: Image.Image) -> Image.Image:
    with _told():
        return plain(image)


@contextmanager
def _told() -> Iterator[None]:
    """Decoders raise OSError, SyntaxError, struct.error and more on foreign bytes: all are a :class:`BrokenImage`."""
    try:
        yield
    except BrokenImage:
        raise
    except Exception as error:
        raise BrokenImage(" ".join(str(error).split()).strip(".") or type(error).__name__) from None


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.pixels:
        raise BrokenImage(f"{width}x{height} pixels: more than the {limits.pixels:,} allowed")


@lru_cache(maxsize=1)
def _readable() -> tuple[str, ...]:
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
    return max(1, data.count(JPEG_SCAN)) if image.format in ("JPEG", "MPO") else 1


def _tiff_passes(image: Image.Image, data: bytes) -> int:
    """Tiles are decoded whole, and may be far larger than the image; each may be a JPEG of its own, with its scans."""
    tags = cast(Any, image).tag_v2
    width, height = (int(tags.get(tag, side)) for tag, side in zip(TILE, image.size, strict=True))
    across, down = -(-image.width // max(1, width)), -(-image.height // max(1, height))
    covered = width * height * max(across * down, data.count(JPEG_SCAN) if tags.get(COMPRESSION) in JPEGS else 0)
    return max(1, -(-covered // (image.width * image.height)))


def _without_extras(data: bytes) -> bytes | None:
    """A PNG without the chunks that only describe it, any of which may be damaged; None where there are none."""
    if not data.startswith(PNG):
        return None
    chunks, at, left_out = [PNG], len(PNG), False
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in CRITICAL:
            chunks.append(data[at : at + 12 + length])
        else:
            left_out = True
        at += 12 + length
    return b"".join(chunks) if left_out else None
