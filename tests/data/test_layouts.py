"""Realistic folders: splits with various names, labels in metadata, saved datasets, links, system files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from data.conftest import encoded, picture
from polypath.data import DataConfig, load_images
from polypath.data.listing import EXTENSIONS

Write = Callable[..., Path]


def flat(root: Path, splits: Iterable[str], n: int = 6, metadata: str = "") -> Path:
    """``n`` images in each split without class folders; ``metadata`` labels them 0 and 1 alternately."""
    for number, split in enumerate(splits):
        (root / split).mkdir(parents=True)
        for i in range(n):
            (root / split / f"{i}.png").write_bytes(encoded(picture(100 * number + i)))
        if metadata == "csv":
            rows = "".join(f"{i}.png,{i % 2}\n" for i in range(n))
            (root / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
        elif metadata:
            rows = "".join(json.dumps({"file_name": f"{i}.png", "label": "ab"[i % 2]}) + "\n" for i in range(n))
            (root / split / "metadata.jsonl").write_text(rows)
    return root


def opened(root: Path, **options: object) -> tuple[tuple[str, ...], int, int]:
    data = load_images(DataConfig(source=str(root), **options))  # pyright: ignore[reportArgumentType]
    return data.classes, len(data.train), len(data.test)


# --- splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "splits", [("training_set", "test_set"), ("seg_train", "seg_test"), ("TRAIN", "TEST"), ("train", "test1")]
)
def test_splits_go_by_many_names(image_folder: Write, splits: tuple[str, str], caplog) -> None:
    root = image_folder(splits)
    with caplog.at_level(logging.INFO, "polypath"):
        assert opened(root) == (("cat", "dog"), 12, 12)
    assert f"train is {splits[0]}/ (2 classes, 12 images); test is {splits[1]}/ (2 classes, 12 images)" in caplog.text
    assert opened(root, train_split=splits[1], test_split=splits[0]) == (("cat", "dog"), 12, 12)


def test_a_split_can_be_requested_by_its_folders_name(image_folder: Write) -> None:
    root = image_folder(("train", "test"), n=6)
    (root / "test" / "cat" / "0.png").unlink()
    assert opened(root, train_split="test", test_split="train") == (("cat", "dog"), 11, 12)


def test_validation_of_any_name_chooses(image_folder: Write) -> None:
    data = load_images(DataConfig(source=str(image_folder(("Train", "Valid", "Test"))), validation_split="validation"))
    assert data.validation is not None
    assert len(data.validation) == 12


def test_archives_are_wrapped_in_folders(image_folder: Write) -> None:
    root = image_folder(("wrapped/seg_train/seg_train", "wrapped/seg_test/seg_test"))
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    assert opened(root) == (("cat", "dog"), 12, 12)


def test_folders_without_labels_are_left_out_and_named(image_folder: Write, caplog) -> None:
    root = flat(image_folder(("seg_train", "seg_test")), ("seg_pred",))
    with caplog.at_level(logging.INFO, "polypath"):
        assert opened(root) == (("cat", "dog"), 12, 12)
    assert "left out: folders seg_pred" in caplog.text
    root = flat(image_folder(("other/train",)) / "other", ("test",))  # a competition keeps its test labels
    assert opened(root) == (("cat", "dog"), 10, 2)


@pytest.mark.parametrize("splits", [("train", "test"), ("training_set", "test_set"), ("seg_train", "seg_test")])
def test_splits_without_labels_are_no_classes(tmp_path: Path, splits: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"has the splits .*, but their images have no labels.* label_column"):
        load_images(DataConfig(source=str(flat(tmp_path / "images", splits))))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert opened(flat(tmp_path / "images", ("train", "car", "bus")))[0] == ("bus", "car", "train")
    assert opened(flat(tmp_path / "more", ("train_station", "test_tube")))[0] == ("test_tube", "train_station")


def test_a_folder_that_may_be_a_split_or_a_class_is_refused(image_folder: Write) -> None:
    root = flat(image_folder(("train",)), ("car",))
    with pytest.raises(ValueError, match=r"has either the split 'train' or the classes train, car: give .*train"):
        load_images(DataConfig(source=str(root)))
    assert opened(root / "train") == (("cat", "dog"), 10, 2)


# --- labels in metadata -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("metadata", "classes"), [("csv", ("0", "1")), ("jsonl", ("a", "b"))])
def test_metadata_labels_flat_splits(tmp_path: Path, metadata: str, classes: tuple[str, ...]) -> None:
    assert opened(flat(tmp_path / "images", ("train", "test"), metadata=metadata)) == (classes, 6, 6)


def test_whole_numbers_in_csv_are_in_order_of_value(tmp_path: Path) -> None:
    root = flat(tmp_path / "images", ("",), n=12)
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(f"{i}.png,{i % 3 * 5}\n" for i in range(12)))
    assert opened(root)[0] == ("0", "5", "10")
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(f"{i}.png,{i % 3:02}\n" for i in range(12)))
    assert opened(root)[0] == ("00", "01", "02")  # a name, no number


def test_one_metadata_file_for_all_splits(tmp_path: Path) -> None:
    root = flat(tmp_path / "images", ("train", "test"))
    rows = "".join(f"{split}/{i}.png,{'ab'[i % 2]}\n" for split in ("train", "test") for i in range(6))
    (root / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert opened(root) == (("a", "b"), 6, 6)


def test_metadata_may_have_a_column_of_splits(tmp_path: Path, caplog) -> None:
    root = flat(tmp_path / "images", ("",), n=12)
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'test' if i < 4 else 'training'}\n" for i in range(12))
    (root / "metadata.csv").write_text(f"file_name,label,split\n{rows}")
    with caplog.at_level(logging.INFO, "polypath"):
        assert opened(root) == (("a", "b"), 8, 4)
    assert "by metadata.csv (2 classes, 8 images)" in caplog.text


def test_ambiguous_columns_of_metadata_must_be_named(tmp_path: Path) -> None:
    root = flat(tmp_path / "images", ("",))
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'xyz'[i % 3]}\n" for i in range(6))
    (root / "metadata.csv").write_text(f"picture,kind,colour\n{rows}")
    with pytest.raises(ValueError, match=r"image_column = None: .* has no matching column; .* picture, kind, colour"):
        opened(root)
    with pytest.raises(ValueError, match=r"label_column = None: .*metadata\.csv has several possible columns"):
        opened(root, image_column="picture")
    assert opened(root, image_column="picture", label_column="colour", test_fraction=0.5)[0] == ("x", "y", "z")


def test_class_folders_go_before_metadata_without_labels(image_folder: Write) -> None:
    root = image_folder(("train", "test"))
    (root / "train" / "metadata.csv").write_text("file_name,caption\ncat/0.png,a cat\n")
    assert opened(root) == (("cat", "dog"), 12, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n../x.png,1\n", r"row 1: '\.\./x\.png' must be a path below the folder of the metadata file"),
        ("file_name,label\n/x.png,1\n", r"row 1: '/x\.png' must be a path below the folder of the metadata file"),
        ("file_name,label\n0.png,1\n0.png,2\n", r"row 2: an earlier row already has the file '0\.png'"),
        ("file_name,label\n0.png,1\n1.png,\n", r"'1\.png' has no label"),
        ("file_name,label\n0.png,1,2,3\n", "row 1: has more cells than columns"),
        ("file_name,label\n", "has no rows"),
        ("file_name,label,split\n0.png,1,train\n1.png,2,\n", "some rows have a split and others have none"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    root = flat(tmp_path / "images", ("",))
    (root / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        opened(root)


@pytest.mark.parametrize("line", ["5", "null", "[1]", '"0.png"'])
def test_a_line_of_metadata_that_is_no_object_is_refused(tmp_path: Path, line: str) -> None:
    root = flat(tmp_path / "images", ("",))
    (root / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"metadata\.jsonl, row 1: is not a JSON object"):
        opened(root)


def test_a_row_without_its_file_is_a_broken_image(tmp_path: Path) -> None:
    root = flat(tmp_path / "images", ("train", "test"), metadata="csv")
    (root / "train" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 6 images of split 'train' cannot be read: train/3\.png \(No such file"):
        opened(root)
    assert opened(root, broken="skip") == (("0", "1"), 5, 6)


# --- saved datasets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [True, False])
def test_what_save_to_disk_wrote_is_read(parquet_folder: Write, tmp_path: Path, several: bool) -> None:
    from datasets import DatasetDict, load_dataset

    files = {split: str(next(parquet_folder().rglob(f"{split}-*"))) for split in ("train", "test")}
    saved = load_dataset("parquet", data_files=files)
    assert isinstance(saved, DatasetDict)
    (saved if several else saved["train"]).save_to_disk(tmp_path / "saved")
    data = load_images(DataConfig(source=str(tmp_path / "saved")))
    assert (data.classes, len(data.train) + len(data.test)) == (("a", "b", "c"), 24 if several else 12)
    next((tmp_path / "saved").rglob("*.arrow")).write_bytes(b"no table")
    with pytest.raises(ValueError, match="saved cannot be read"):
        load_images(DataConfig(source=str(tmp_path / "saved")))


def test_parquet_splits_go_by_many_names(parquet_folder: Write) -> None:
    root = parquet_folder()
    for split in ("train", "test"):
        (root / f"{split.title()}_Set").mkdir()
        os.rename(root / f"data/{split}-00000-of-00001.parquet", root / f"{split.title()}_Set" / "0000.parquet")
    assert opened(root) == (("a", "b", "c"), 12, 12)


# --- files ------------------------------------------------------------------------------------------------


def test_system_files_are_ignored_and_other_files_named(image_folder: Write, caplog) -> None:
    root = image_folder(())
    for name in (".ipynb_checkpoints/0.png", "@eaDir/0.jpg/thumb.jpg", "__MACOSX/0.png", ".DS_Store", "Thumbs.db"):
        (root / "cat" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cat" / name).write_bytes(encoded(picture(1)))
    (root / "cat" / "photo.heic").write_bytes(b"")
    (root / "stray.png").write_bytes(encoded(picture(1)))
    with caplog.at_level(logging.INFO, "polypath"):
        assert opened(root) == (("cat", "dog"), 10, 2)
    assert "left out: cat/photo.heic; stray.png" in caplog.text


def test_jfif_is_jpeg(image_folder: Write) -> None:
    root = image_folder((), kind="JPEG")
    for file in root.rglob("*.jpeg"):
        file.rename(file.with_suffix(".JFIF"))
    assert opened(root) == (("cat", "dog"), 10, 2)
    assert ".jfif" in EXTENSIONS


def test_links_are_followed_each_folder_once(image_folder: Write, tmp_path: Path) -> None:
    root = image_folder(())
    (root / "cat").rename(tmp_path / "elsewhere")
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "x.png").write_bytes(encoded(picture(99)))
    (tmp_path / "elsewhere" / "more").symlink_to(tmp_path / "deeper")
    (tmp_path / "deeper" / "round").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "up").symlink_to(root)
    assert opened(root) == (("cat", "dog"), 10, 3)


def test_dangling_links_are_broken_images(image_folder: Write) -> None:
    root = image_folder(("train", "test"))
    (root / "train" / "cat" / "x.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"train/cat/x\.png \(No such file or directory\)"):
        opened(root)
    data = load_images(DataConfig(source=str(root), broken="skip"))
    assert (len(data.train), data.skipped) == (12, ("train/cat/x.png (No such file or directory)",))


def test_a_class_that_is_a_dangling_link_is_refused(image_folder: Write) -> None:
    root = image_folder(())
    (root / "owl").symlink_to("nowhere")
    with pytest.raises(ValueError, match="owl is a dangling link"):
        opened(root)
    assert opened(root, broken="skip") == (("cat", "dog"), 10, 2)


def test_a_pipe_is_no_image(image_folder: Write) -> None:
    root = image_folder(())
    os.mkfifo(root / "cat" / "pipe.png")
    with pytest.raises(ValueError, match=r"cat/pipe\.png \(must be a regular file, but is a pipe\)"):
        opened(root)


@pytest.mark.parametrize("options", [{}, {"cache": False}, {"streaming": True, "size": 8, "workers": 0}])
@pytest.mark.parametrize("where", ["file", "class"])
def test_names_that_are_not_utf8(image_folder: Write, where: str, options: dict) -> None:
    root, odd = image_folder(()), os.fsdecode(b"caf\xe9")
    if where == "file":
        (root / "cat" / "0.png").rename(root / "cat" / f"{odd}.png")
    else:
        (root / "cat").rename(root / odd)
    classes, train, test = opened(root, **options)
    assert (classes[0], train, test) == ("cat" if where == "file" else r"caf\xe9", 10, 2)
    (root / "dog" / f"{odd}.png").write_bytes(b"broken")
    if not options.get("streaming"):
        with pytest.raises(ValueError, match=r"dog/caf\\xe9\.png \(this is not an image, "):
            opened(root, **options)
