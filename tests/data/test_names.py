"""Splits are recognised by the names of folders."""

from __future__ import annotations

import os

import pytest

from polypath.core.display import printable
from polypath.data.names import hidden_or_system, split_of, splits_among


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            (name, "train")
            for name in ("train", "TRAIN", "Training", "training_set", "trainset", "TrainData", "train7")
        ),
        *((name, "test") for name in ("Test", "testing", "test_images", "test1", "test-data", "eval")),
        *((name, "validation") for name in ("val", "Valid", "VALIDATION", "dev", "val2017", "valset")),
        *((name, None) for name in ("seg_train", "cat", "train_test", "trains", "test_tube", "contest", "devon")),
    ],
)
def test_a_name_denotes_a_split_if_the_rest_is_filler(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["seg_train", "seg_test", "seg_pred"], {"train": "seg_train", "test": "seg_test"}),
        (["ILSVRC_img_train", "ILSVRC_img_val"], {"train": "ILSVRC_img_train", "validation": "ILSVRC_img_val"}),
        (["train_32x32", "test_32x32"], {"train": "train_32x32", "test": "test_32x32"}),
        (["Train", "Test", "docs"], {"train": "Train", "test": "Test"}),
        (["train", "test", "test_images"], {"train": "train", "test": "test", "test_images": "test_images"}),
        (["train_station", "test_tube"], {}),  # classes
        (["toy_train", "toy_car"], {}),
        (["val", "dog", "cat"], {}),
        (["cat", "dog"], {}),
    ],
)
def test_splits_among_folders(names: list[str], splits: dict[str, str]) -> None:
    assert splits_among(names) == splits


def test_requested_splits_are_splits() -> None:
    assert splits_among(["old", "new", "cat"], {"old", "new"}) == {"old": "old", "new": "new"}


def test_system_files_are_known_in_any_case() -> None:
    assert all(map(hidden_or_system, (".DS_Store", "__MACOSX", "Thumbs.db", "@eaDir", ".ipynb_checkpoints")))
    assert not hidden_or_system("thumbs")


def test_a_name_that_is_no_text_can_be_printed() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert printable("café") == "café"
    assert printable(name).encode("utf-8", "strict").startswith(b"caf")
