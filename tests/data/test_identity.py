"""The identity of images: independent of their location, different for other images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.conftest import encoded, picture
from polypath.data import DataConfig, load_images
from polypath.data.identity import Part, brief, differences, fingerprint, part_of, read_files
from polypath.data.sources import identify

Write = Callable[..., Path]


def test_moved_and_touched_images_are_the_same(image_folder: Write, tmp_path: Path) -> None:
    root = image_folder()
    before = identify(DataConfig(source=str(root)))
    assert {name: part.images for name, part in before.items()} == {
        f"{split}/{label}": 6 for split in ("train", "test") for label in ("cat", "dog")
    }
    shutil.copytree(root, tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "train" / "cat" / "0.png", (0, 0))
    config = DataConfig(source=str(tmp_path / "elsewhere"), size=8, streaming=True, workers=0)
    assert identify(config) == before
    assert load_images(config).identity == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: (root / "train/cat/0.png").unlink(), "train/cat has 5 images, not 6"),
        (
            lambda root: (root / "train/cat/0.png").rename(root / "train/cat/9.png"),
            "train/cat has other contents or names",
        ),
        (lambda root: (root / "test/dog/0.png").write_bytes(encoded(picture(7), "BMP")), "test/dog has other contents"),
        (lambda root: (root / "test/dog").rename(root / "test/cow"), "test/cow is new, test/dog is missing"),
    ],
)
def test_differences_are_reported(image_folder: Write, change: Callable[[Path], object], told: str) -> None:
    root = image_folder()
    before = identify(DataConfig(source=str(root)))
    change(root)
    assert brief(differences(before, identify(DataConfig(source=str(root))))) == told


def test_the_same_size_is_not_enough(image_folder: Write) -> None:
    root = image_folder(kind="BMP")
    before, file = identify(DataConfig(source=str(root))), root / "train/cat/0.bmp"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    assert differences(before, identify(DataConfig(source=str(root)))) == ["train/cat has other contents or names"]


@pytest.mark.parametrize("streaming", [False, True])
def test_tables_are_identified_by_their_files(parquet_folder: Write, tmp_path: Path, streaming: bool) -> None:
    root = parquet_folder()
    config = DataConfig(source=str(root), size=8, streaming=streaming, workers=0)
    before = load_images(config).identity
    assert {name: part.images for name, part in before.items()} == {"train": 12, "test": 12}
    shutil.copytree(root, tmp_path / "copy")
    assert identify(DataConfig(source=str(tmp_path / "copy"))) == before
    parquet_folder(("test",), columns={"label": [2] * 12})
    assert differences(before, identify(DataConfig(source=str(root)))) == ["test has other contents"]


def test_digits_are_always_the_same() -> None:
    assert identify(DataConfig()) == identify(DataConfig())
    assert differences(identify(DataConfig()), identify(DataConfig())) == []


def test_large_datasets_are_sampled_and_times_do_not_matter(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.bin" for i in range(4)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * 10)
    (facts, whole), (read, all_read) = read_files(files, tmp_path, limit=39), read_files(files, tmp_path)
    assert (whole, all_read) == (False, True)
    assert part_of(facts, 4).bytes == 40
    os.utime(files[0], (0, 0))
    (touched, _), (again, _) = read_files(files, tmp_path, limit=39), read_files(files, tmp_path)
    assert part_of(touched, 4) == part_of(facts, 4)
    assert fingerprint(touched, False) != fingerprint(facts, False)  # the cache is more careful
    assert fingerprint(again, True) == fingerprint(read, True)
    files[2].write_bytes(b"0123456789")
    assert part_of(read_files(files, tmp_path, limit=39)[0], 4) != part_of(facts, 4)


def test_many_differences_are_counted() -> None:
    before = {str(i): Part(1, 1, "") for i in range(9)}
    assert brief(differences(before, {})) == "0 is missing, 1 is missing, 2 is missing, and 6 more"
