from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from polypath.data import augment
from polypath.data.images import BrokenImage, ImageLimits, open_image
from polypath.data.pipeline import Pipeline
from polypath.deploy.images import Preparation, files_of, preparation

PREP = Preparation((8, 8), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def png(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", **options)
    return stream.getvalue()


def test_arrays_files_bytes_and_images_give_the_same_pixels(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    data = png(array)
    (tmp_path / "a.png").write_bytes(data)
    for source in (array, array[None], data, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (PREP.array(source) == array[None]).all()
    assert PREP.array([data, array]).shape == (2, 8, 8, 3)


def test_normalises_as_the_training_pipeline_does():
    array = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    pipe = Pipeline(mean=PREP.mean, std=PREP.std)
    wanted = pipe(torch.from_numpy(array).permute(0, 3, 1, 2), augment.Draws()).numpy()
    np.testing.assert_allclose(PREP.normalised(array), wanted, rtol=1e-5, atol=1e-5)
    other = Preparation((8, 8), (0.5, 0.4, 0.2), PREP.std)
    assert not np.allclose(other.normalised(array), wanted, atol=1e-2)


def test_sizes_follow_the_policy_and_crops_are_central():
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    assert (PREP.array(wide) == 200).all()  # the central square
    squashed = Preparation((8, 8), PREP.mean, PREP.std, "squash").array(wide)
    assert squashed.min() == 0
    larger = Preparation((4, 4), PREP.mean, PREP.std, "crop", 8).array(wide)
    assert larger.shape == (1, 4, 4, 3)
    oblong = Preparation((4, 8), PREP.mean, PREP.std).array(wide)
    assert oblong.shape == (1, 4, 8, 3)


def test_turns_upright_by_exif():
    array = np.zeros((8, 8, 3), np.uint8)
    array[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", exif=exif)
    assert (PREP.array(stream.getvalue())[0, 7] == 255).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no bytes"),
        (b"hello", "not an image"),
        (png(np.zeros((64, 64, 3), np.uint8))[:60], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # would start Ghostscript
        (b"x" * 5000, "more than the 4,096 bytes"),
    ],
)
def test_broken_bytes_say_what_is_wrong(data, words):
    with pytest.raises(BrokenImage, match=words):
        open_image(data, ImageLimits(bytes=4096))


def test_a_bomb_is_refused_by_its_header():
    """A PNG of 8,000 x 8,000 pixels in a few bytes: nothing of it is decoded."""
    head = struct.pack(">IIBBBBB", 8_000, 8_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    data += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    with pytest.raises(BrokenImage, match="8000x8000 pixels"):
        open_image(data)
    with pytest.raises(BrokenImage, match="pixels"):
        open_image(Image.new("RGB", (30, 30)), ImageLimits(pixels=100))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        [],
        None,
        [3],
        {"a": 1},
    ],
)
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(ValueError, match="image"):
        PREP.array(bad)


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"no")
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(BrokenImage, match=name):
            PREP.array(tmp_path / name)


def test_folders_give_their_images_by_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in files_of([tmp_path, tmp_path / "notes.txt"])] == ["a.png", "b.png", "c.jpg", "notes.txt"]
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(ValueError, match=place.name):
            list(files_of([place]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": None}, "image = None: expected a table"),
        ({"image": {"size": [0, 8]}}, r"image.size\[0\] = 0: expected a whole number >= 1"),
        ({"image": {"size": [8, 8], "resize": "fold"}}, "image.resize = 'fold': must be one of crop, squash, pad"),
        ({"normalisation": {"mean": [0.5]}}, "normalisation lacks the field 'std'"),
        ({"normalisation": {"mean": [0.5], "std": [0.5, 0.5]}}, "1 means and 2 std"),
    ],
)
def test_a_config_without_preparation_is_refused(change, words):
    good = {"image": {"size": [8, 8]}, "normalisation": {"mean": [0.5], "std": [0.5]}}
    assert preparation(good).channels == 1
    with pytest.raises(ValueError, match=words):
        preparation(good | change)


def test_the_old_name_of_the_limits_still_works():
    import polypath.deploy

    with pytest.warns(DeprecationWarning, match="ImageLimits"):
        assert getattr(polypath.deploy, "Limits") is ImageLimits  # noqa: B009
