"""Metadata that costs more than the pixels, in each format: it is left out, or the image is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from polypath.data.bare import bare, modest
from polypath.data.images import BrokenImage, LargeImage, open_image, probe

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16), np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


PLAIN = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "PPM")}


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tags(count: int, size: int, *more: tuple[int, int, int, int]) -> bytes:
    """A TIFF's head with tags of ``size`` bytes that all lie in one place."""
    entries = sorted([*more, *((1000 + i, 7, size, 8) for i in range(count))])
    body = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4 + size)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def left_out() -> Iterator[tuple[str, bytes]]:
    png, jpeg, gif = PLAIN["PNG"], PLAIN["JPEG"], PLAIN["GIF"]
    first = gif.index(b",", 13 + 3 * (2 << (gif[10] & 7)))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20 - 64)))
    yield "PNG", png[:33] + profile * 300 + png[33:]
    yield "PNG", png[:-12] + profile * 300 + png[-12:]
    yield "PNG", png[:33] + chunk(b"abcd", b"") * 900 + png[33:]
    yield "PNG", png[:33] + chunk(b"eXIf", tags(900, 40_000)) + png[33:]
    yield "JPEG", jpeg[:2] + segment(0xE5, b"") * 4000 + jpeg[2:]
    yield "JPEG", jpeg[:2] + segment(0xE1, b"Exif\0\0x") * 4000 + jpeg[2:]
    yield "JPEG", jpeg[:2] + segment(0xE1, b"Exif\0\0" + tags(900, 40_000)) + jpeg[2:]
    yield "JPEG", jpeg[:2] + segment(0xE2, b"MPF\0" + tags(900, 40_000)) + jpeg[2:]
    yield "JPEG", jpeg[:2] + b"\xff\x00" * 100_000 + b"\xff" * 100_000 + jpeg[2:]
    yield "GIF", gif[:first] + b"!\xfe\1a\0" * 30_000 + gif[first:]
    yield "GIF", gif[:first] + b"!\xfe" + (b"\xff" + b"a" * 255) * 30_000 + b"\0" + gif[first:]


@pytest.mark.parametrize(("kind", "bomb"), [*left_out()])
def test_metadata_never_reach_the_decoder(kind, bomb):
    assert len(bare(kind, bomb, 1000).data) <= len(PLAIN[kind])
    assert (np.asarray(open_image(bomb, most=2**20)) == np.asarray(open_image(PLAIN[kind]))).all()


def test_what_costs_too_much_is_refused():
    gif, jpeg = PLAIN["GIF"], PLAIN["JPEG"]
    for bomb, why in (
        (tags(900, 40_000), "the values of the image's tags overlap"),
        (tags(2000, 4), "more than 1,024 tags"),
        (b"MM\0+" + bytes(100), "BigTIFF"),
        (b"P5 " + b" " * 10_000 + b"1 1 255 a", "header has more than 1,024 bytes|EOF"),
        (b"P5 1 1 25#" + b" " * 10_000 + b"\n a", "header has more than 1,024 bytes"),
        (gif[:13] + b"!\xfe\0" * 70_000, "more than 65,536 blocks"),
        (jpeg[:2] + segment(0xDB, bytes(65)) * 300 + jpeg[2:], "longer than that of any usual JPEG"),
        (jpeg[:2] + segment(0xE5, b"") * 5000 + jpeg[2:], "longer than that of any usual JPEG"),
        (jpeg[:2] + b"\xff\xe5\0\0" * 100 + jpeg[2:], "a segment of its header is too short"),
    ):
        with pytest.raises(BrokenImage, match=why):
            open_image(bomb)


def test_parts_count_as_work():
    """Pillow reads the chunks of a PNG and the strips of a TIFF one by one in Python; strips may share one offset."""
    png = PLAIN["PNG"]
    many = png[:33] + chunk(b"IDAT", b"") * 2000 + png[33:]
    assert probe(many).work > 2_000_000 > probe(png).work
    strips = 2000
    at, size = 8, PIXELS.size
    width, height = PIXELS.shape[::-1]
    known = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (277, 1), (278, height - 1)]
    places = [(273, 4, strips, at + size), (279, 4, strips, at + size + 4 * strips)]
    entries = sorted([*((tag, 4, 1, value) for tag, value in known), *places])
    values = struct.pack("<L", at) * strips + struct.pack("<L", size) * strips
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries) + bytes(4)
    tiff = b"II*\0" + struct.pack("<L", at + size + len(values)) + PIXELS.tobytes() + values + body
    assert probe(tiff).passes > 500
    for bomb in (many, tiff):
        with pytest.raises(LargeImage):
            open_image(bomb, most=2**20)


def test_orientations_stay():
    exif = Image.Exif()
    exif[274] = 6
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    turned = {kind: encoded(kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")} | {"XMP": encoded("JPEG", xmp=xmp)}
    for data in turned.values():
        assert open_image(data).size == (24, 16)
    assert modest(exif.tobytes())
    assert not modest(b"Exif\0\0" + tags(900, 40_000))
