"""Conversion of each of Pillow's modes; no image silently turns black."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from polypath.data.images import BrokenImage, open_image

RAMP = np.linspace(0, 65535, 20).astype(np.uint16).reshape(4, 5)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(data: bytes, width: int, height: int, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF of these samples."""
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(values))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items()) + bytes(4)


@pytest.mark.parametrize(
    ("array", "kind", "wanted"),
    [
        (RAMP, "PNG", RAMP >> 8),
        (RAMP, "TIFF", RAMP >> 8),
        (RAMP.astype(">u2"), "TIFF", RAMP >> 8),
        (np.zeros((2, 2), np.uint16), "PNG", np.zeros((2, 2))),
    ],
)
def test_grey_of_16_bits(array, kind, wanted):
    image = Image.fromarray(array)
    assert np.asarray(open_image(saved(image, kind))).tolist() == wanted.tolist()
    if image.mode != "I":
        assert np.asarray(open_image(image)).tolist() == wanted.tolist()


def test_grey_of_16_bits_in_a_pgm():
    data = b"P5 5 4 65535\n" + RAMP.astype(">u2").tobytes()
    assert np.asarray(open_image(data)).tolist() == (RAMP >> 8).tolist()
    data = b"P5 2 1 4095\n" + np.array([[0, 4095]], ">u2").tobytes()
    assert np.asarray(open_image(data)).tolist() == [[0, 255]]


def test_grey_of_12_bits():
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x01, 0x00])  # 0, 4095, 2048, 256
    assert np.asarray(open_image(tiff(packed, 4, 1, 12))).tolist() == [[0, 255, 128, 16]]


def test_white_is_zero():
    levels = np.array([[0, 65535, 0x8000]], "<u2")
    assert np.asarray(open_image(tiff(levels.tobytes(), 3, 1, 16, 0))).tolist() == [[255, 0, 127]]
    assert np.asarray(open_image(tiff(levels.tobytes(), 3, 1, 16, 1))).tolist() == [[0, 255, 128]]


def png_16(values: np.ndarray, clear: bytes = b"") -> bytes:
    """A PNG of 16 bits, grey (H, W) or colour (H, W, 3), with the level or colour that is transparent."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", clear) if clear else b""]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_colour_of_16_bits():
    values = np.array([[[0, 30000, 65535], [256, 512, 4096]]])
    assert np.asarray(open_image(png_16(values))).tolist() == (values >> 8).tolist()


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(RAMP >> 4)),
        saved(Image.fromarray(RAMP >> 4), "TIFF"),
        png_16(np.full((2, 2, 3), 4095)),
        png_16(np.full((2, 2, 3), 100)),
    ],
)
def test_12_bits_in_16_are_refused_rather_than_black(data):
    with pytest.raises(BrokenImage, match="nearly black, and their true range is unknown"):
        open_image(data)


def test_an_unknown_range_is_refused():
    for array in (np.ones((2, 2), np.float32), np.ones((2, 2), np.int32)):
        for source in (saved(Image.fromarray(array), "TIFF"), Image.fromarray(array)):
            with pytest.raises(BrokenImage, match=r"pixels of mode [FI] have an unknown range"):
                open_image(source)
    with pytest.raises(BrokenImage, match="pixels of mode LAB"):
        open_image(Image.new("LAB", (2, 2)))


def half_clear(mode: str) -> Image.Image:
    """Black, its right half transparent."""
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (2, 0, 4, 2))
    return image.convert(mode)


def indexed(**options) -> bytes:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.paste(0, (2, 0, 4, 2))
    return saved(image, **options)


def keyed(mode: str, clear: int | tuple[int, ...]) -> bytes:
    """Nearly black, with one colour that means transparent."""
    image = Image.new(mode, (4, 2), 1 if mode == "L" else (1, 1, 1))
    image.paste(clear, (2, 0, 4, 2))
    return saved(image, transparency=clear)


@pytest.mark.parametrize(
    "source",
    [
        saved(half_clear("RGBA")),
        saved(half_clear("LA")),
        saved(half_clear("RGBA"), "WEBP", lossless=True),
        half_clear("RGBA").convert("RGBa"),
        half_clear("LA").convert("La"),
        half_clear("RGBA").quantize(),
        Image.merge("PA", (Image.new("L", (4, 2), 0), half_clear("LA").getchannel("A"))),
        indexed(transparency=0),
        indexed(transparency=b"\0"),
        indexed(kind="GIF", transparency=0),
        keyed("L", 0),
        keyed("RGB", (0, 0, 0)),
    ],
)
def test_transparent_pixels_become_white(source):
    array = np.asarray(open_image(source))
    assert array[:, :2].max() <= 1
    assert array[:, 2:].min() == 255


def test_half_transparent_pixels_are_mixed_with_white():
    image = open_image(saved(Image.new("RGBA", (2, 2), (0, 100, 200, 51))))  # a fifth
    assert np.asarray(image)[0, 0].tolist() == [204, 224, 244]
    assert open_image(Image.new("LA", (2, 2), (0, 51))).getpixel((0, 0)) == 204


def test_a_transparent_colour_of_16_bits():
    image = np.asarray(open_image(png_16(RAMP, struct.pack(">H", RAMP[1, 0]))))
    assert image[1, 0] == 255
    assert (image[2:] == RAMP[2:] >> 8).all()
    values = np.array([[[0, 30000, 65535], [60000, 512, 4096]]])
    image = np.asarray(open_image(png_16(values, struct.pack(">HHH", *values[0, 0]))))
    assert image.tolist() == [[[255] * 3, [234, 2, 16]]]


@pytest.mark.parametrize(
    ("mode", "colour"), [("CMYK", (0, 255, 255, 0)), ("YCbCr", (76, 85, 255)), ("HSV", (0, 255, 255))]
)
def test_other_colours_are_rgb(mode, colour):
    image = Image.new(mode, (4, 4), colour)
    for source in (image, saved(image, "TIFF")) if mode == "CMYK" else (image,):
        red, green, blue = np.asarray(open_image(source))[0, 0]
        assert red > 250
        assert max(green, blue) < 5


def test_black_and_white_are_grey():
    array = np.asarray(open_image(saved(Image.fromarray(np.array([[True, False]])))))
    assert array.tolist() == [[255, 0]]


def test_an_image_that_needs_no_change_is_returned_itself():
    image = Image.new("RGB", (3, 3), "red")
    assert open_image(image) is image
    grey = Image.new("LA", (3, 3))
    open_image(grey)
    assert grey.mode == "LA"  # a caller's image is not changed
