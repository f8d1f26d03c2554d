"""A user's own CIFAR-100, in the forms in which it is distributed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from polypath.data.config import DataConfig
from polypath.data.sources import load_images

Write = Callable[..., Path]


@pytest.mark.parametrize("typed", [True, False])
def test_the_hubs_parquet_form_has_the_fine_labels(parquet_folder: Write, typed: bool) -> None:
    from datasets import ClassLabel, Value

    fine, coarse = ([f"{kind}{i}" for i in range(n)] for kind, n in (("fine", 4), ("coarse", 2)))
    labels = {"fine_label": [i % 4 for i in range(12)], "coarse_label": [i % 4 // 2 for i in range(12)]}
    kinds = {
        name: ClassLabel(names=names) if typed else Value("int64")
        for name, names in zip(labels, (fine, coarse), strict=True)
    }
    root = str(parquet_folder(columns=labels, features=kinds, drop=("label",)))
    data = load_images(DataConfig(source=root))
    assert data.classes == (tuple(fine) if typed else ("0", "1", "2", "3"))
    assert data.train.labels.tolist() == labels["fine_label"]
    twenty = load_images(DataConfig(source=root, label_column="coarse_label"))
    assert twenty.classes == (tuple(coarse) if typed else ("0", "1"))
    assert twenty.train.labels.tolist() == labels["coarse_label"]


def test_two_other_label_columns_are_refused_as_ambiguous(parquet_folder: Write) -> None:
    from datasets import Value

    numbers = {name: list(range(12)) for name in ("fine_label", "rough_label")}
    kinds = {name: Value("int64") for name in numbers}
    root = parquet_folder(columns=numbers, features=kinds, drop=("label",))
    with pytest.raises(
        ValueError, match=r"several columns that can be the label_column; choose one of fine_label, rough_label"
    ):
        load_images(DataConfig(source=str(root)))


def test_folders_of_pictures_are_read(image_folder: Write) -> None:
    data = load_images(DataConfig(source=str(image_folder(classes=("apple", "aquarium_fish", "baby")))))
    assert data.classes == ("apple", "aquarium_fish", "baby")


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    ("dataset", "folder", "names"),
    [
        ("CIFAR-100", "cifar-100-python", ("train", "test", "meta", "file.txt~")),
        ("CIFAR-10", "cifar-10-batches-py", ("data_batch_1", "data_batch_2", "test_batch", "batches.meta")),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_the_pickled_form_is_refused_unread(
    tmp_path: Path, dataset: str, folder: str, names: tuple[str, ...], inside: bool
) -> None:
    root, sprung = tmp_path / "data" / folder, tmp_path / "sprung"
    root.mkdir(parents=True)
    for name in names:
        (root / name).write_bytes(pickle.dumps(Trap(sprung)))
    source = root if inside else root.parent
    with pytest.raises(ValueError, match=rf"{folder} has {dataset} as Python pickles, .* \(see docs/data.md") as told:
        load_images(DataConfig(source=str(source)))
    assert f"uoft-cs/{dataset.lower().replace('-', '')} on" in str(told.value)
    assert not sprung.exists()
