"""Opening images: the same pixels from every kind of source; unreadable images raise with a reason; nothing hangs."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polypath.data import images
from polypath.data.images import BrokenImage, ImageLimits, open_image, probe
from polypath.deploy import Bundle
from polypath.deploy.images import Preparation

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(kind: str = "JPEG") -> bytes:
    """A wide picture of a camera that was held on its side: upright, its dark part is at the bottom."""
    array = np.full((16, 32, 3), 250, np.uint8)
    array[:, 20:] = 9
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(Image.fromarray(array), kind, exif=exif)


# --- one way in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_kind_of_source_gives_the_same_upright_pixels(tmp_path, kind):
    data, file = photo(kind), tmp_path / "photo"
    file.write_bytes(data)
    wanted = np.asarray(open_image(data))
    assert wanted.shape == (32, 16, 3)
    assert wanted[-5:].max() < 40 < 200 < wanted[:15].min()
    loaded = Image.open(file)
    loaded.load()
    for source in (file, str(file), bytearray(data), memoryview(data), Image.open(file), loaded):
        assert (np.asarray(open_image(source)) == wanted).all()
    once = open_image(data)
    assert (np.asarray(open_image(once)) == wanted).all()  # turned once, not twice


def test_predictor_service_and_training_read_alike(tmp_path):
    """A wide photo, and one with transparency, by each of the three."""
    from polypath.data.decode import decode_all
    from polypath.serve.model import BundleModel

    prep = Bundle.open().preparation
    clear = encoded(Image.new("RGBA", (48, 32), (200, 30, 30, 100)), "PNG")

    class Table:
        split = "train"

        def __len__(self):
            return 2

        def read(self, rows):
            return [[photo("PNG"), clear][row] for row in rows]

        def name(self, row):
            return str(row)

    class Predictor:
        class bundle:
            preparation = prep

    trained = decode_all(Table(), size=prep.size[0], resize=prep.resize, channels=3).images.permute(0, 2, 3, 1).numpy()
    assert (prep.array([photo("PNG"), clear]) == trained).all()
    model = BundleModel.__new__(BundleModel)
    model.predictor = Predictor  # pyright: ignore[reportAttributeAccessIssue]
    assert (model.decode(clear, 10**6) == prep.normalised(trained[1:])[0]).all()


def test_bytes_of_any_kind_are_one_image():
    prep = Preparation((8, 8), (0.5,), (0.5,))
    data = encoded(Image.new("L", (8, 8), 7), "PNG")
    for source in (data, bytearray(data), memoryview(data)):
        assert prep.array(source).shape == (1, 8, 8, 1)


# --- metadata -----------------------------------------------------------------------------------------------


def ifd(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of these entries: tag, type, count, value of four bytes."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


TURNED = (ORIENTATION, 3, 1, b"\6\0")
FAR = b"\xff\xff\xff\x7f"


@pytest.mark.parametrize(
    ("exif", "upright"),
    [
        (ifd(TURNED), True),
        (ifd(TURNED, (0x9C9C, 1, 5000, FAR)), True),  # a comment beyond the block
        (ifd(TURNED, (0x8769, 4, 1, FAR)), True),  # a pointer to nothing
        (ifd(TURNED, (0x011A, 2, 3, b"72\0\0")), True),  # a text for a number
        (ifd(TURNED, TURNED), True),
        (b"Exif\0\0" + ifd(TURNED), None),  # of which older Pillows make nothing
        (ifd((ORIENTATION, 2, 2, b"6\0\0\0")), False),
        (ifd((ORIENTATION, 3, 1, b"\x09\0")), False),
        (b"Exif\0\0", False),
        (b"Exif\0\0\xff\x00garbage", False),
        (ifd(TURNED)[:-10], False),
    ],
)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of corrupt EXIF
def test_malformed_exif_does_not_spoil_the_pixels(exif, upright):
    data = encoded(Image.new("RGB", (32, 16)), "JPEG", exif=exif)
    for source in (data, Image.open(io.BytesIO(data))):
        size = open_image(source).size
        assert size in ((16, 32), (32, 16))
        assert upright in (None, size == (16, 32))


def chunk(name: bytes, body: bytes, damaged: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ damaged)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"a\0b", damaged=True),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))),  # more text than Pillow takes
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"pHYs", b"\0"),
    ],
)
def test_damaged_metadata_of_a_png_do_not_spoil_the_pixels(extra):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8))
    data = encoded(image, "PNG")
    spoilt = data[:33] + extra + data[33:]
    assert (np.asarray(open_image(spoilt)) == np.asarray(image)).all()
    assert probe(spoilt) == probe(data)
    with pytest.raises(BrokenImage):
        open_image(data[:33] + extra + data[33:60])


# --- regular files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_only_regular_files_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    file = Path("x.png")
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(file))
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    with pytest.raises(BrokenImage, match=f"x.png: must be a regular file, but is a {kind}"):
        open_image(file)


def test_files_are_named_as_they_can_be_shown(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    file.write_bytes(b"no image")
    with pytest.raises(BrokenImage, match=r"caf\\xe9\\n\.png: this is not an image, or its format"):
        open_image(file)
    with pytest.raises(BrokenImage, match=r"\\xe9: No such file"):
        open_image(tmp_path / os.fsdecode(b"\xe9"))


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_header_is_read_without_decoding(monkeypatch):
    from PIL import ImageFile

    def load(self):
        raise AssertionError("decoded")

    data = encoded(Image.new("RGB", (30, 20)), "JPEG", progressive=True)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    header = probe(data)
    assert (header.format, header.width, header.height, header.pixels) == ("JPEG", 30, 20, 600)
    assert header.passes == data.count(b"\xff\xda") > 5
    assert header.work == 1024 * header.passes + len(data)  # a pass takes time however few pixels there are
    assert probe(encoded_once["PNG"]).passes == 1


encoded_once = {"PNG": encoded(Image.new("L", (4, 4)), "PNG")}


def test_scans_and_slow_decoders_count():
    """A progressive JPEG with its last scan repeated; an image whose decoder is written in Python."""
    data = encoded(Image.new("L", (100, 100)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + data[-2:]
    limits = ImageLimits(pixels=10_000)
    assert open_image(data, limits).size == (100, 100)
    assert open_image(bomb).size == (100, 100)  # little work on so few pixels
    for what in (bomb, b"P3 100 100 255 " + b"0 " * 30_000):
        with pytest.raises(BrokenImage, match=r"decoding 100x100 pixels in [\d,]+ passes is too much work"):
            probe(what, limits)


def test_only_the_formats_of_the_probe_are_decoded():
    """A file may also be valid in another of Pillow's formats: those decoders never see it."""
    for kind in ("ICO", "TGA", "PCX", "IM", "SGI", "DDS", "EPS"):
        with pytest.raises(BrokenImage, match="not an image"):
            open_image(encoded(Image.new("RGB", (16, 16)), kind))
    for kind in images.FORMATS:
        if kind in Image.SAVE:
            assert open_image(encoded(Image.new("RGB", (16, 16)), kind)).size == (16, 16)


def test_unsupported_variants_of_a_format_are_refused():
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # bits of a sample
    with pytest.raises(BrokenImage, match="12-bit"):
        open_image(bytes(data))
