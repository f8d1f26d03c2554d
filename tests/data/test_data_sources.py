"""Datasets of every kind are found, split, decoded and measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from polypath.data import DataConfig, ImageData, Split, load_images
from polypath.data.config import Resize
from polypath.data.measure import channel_statistics

Write = Callable[..., Path]


def memory(data: ImageData) -> tuple[Split, Split]:
    assert isinstance(data.train, Split)
    assert isinstance(data.test, Split)
    return data.train, data.test


# --- digits -----------------------------------------------------------------------------------------------


def test_digits_need_nothing() -> None:
    data = load_images(DataConfig())
    train, test = memory(data)
    assert (len(train), len(test), data.validation) == (1437, 360, None)
    assert (data.name, data.size, data.channels, data.classes) == ("digits", (8, 8), 1, tuple("0123456789"))
    assert train.images.max() == 255
    assert test.labels.bincount().tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]


def test_digits_are_scikit_learns_each_in_one_split() -> None:
    from sklearn.datasets import load_digits

    train, test = memory(load_images(DataConfig()))
    ours = torch.cat([train.images, test.images]).flatten(1).numpy()
    digits: Any = load_digits()
    theirs = np.round(digits.data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))


def test_images_held_out_leave_training_and_its_statistics() -> None:
    data = load_images(DataConfig(validation=200))
    train, _ = memory(data)
    assert isinstance(data.validation, Split)
    assert (len(train), len(data.validation)) == (1237, 200)
    mean, std = channel_statistics(train.images)
    assert (data.mean, data.std) == (mean, std)
    assert data.mean != load_images(DataConfig()).mean


def test_the_same_config_gives_the_same_data_and_another_seed_another() -> None:
    config = DataConfig(validation=200)
    assert load_images(config).fingerprint == load_images(config).fingerprint
    assert load_images(config).fingerprint != load_images(DataConfig(validation=200, split_seed=1)).fingerprint


def test_fewer_images_keep_the_classes_shares() -> None:
    train, test = memory(load_images(DataConfig(train_images=500, test_images=100)))
    assert (len(train), len(test)) == (500, 100)
    assert train.labels.bincount().min() >= 47
    assert train.labels.bincount().max() <= 53


def test_digits_at_another_size_and_in_colour() -> None:
    train, _ = memory(load_images(DataConfig(size=32, channels=3)))
    assert train.images.shape[1:] == (3, 32, 32)
    assert torch.equal(train.images[:, 0], train.images[:, 2])


# --- normalisation ----------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_pixels() -> None:
    images = torch.randint(0, 256, (5000, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 1] //= 2
    mean, std = channel_statistics(images)
    pixels = images.double() / 255
    assert torch.allclose(torch.tensor(mean).double(), pixels.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(torch.tensor(std).double(), pixels.std((0, 2, 3), correction=0), atol=1e-7)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    mean, std = channel_statistics(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8))
    assert (round(mean[0], 6), std[0]) == (0.2, 1.0)


def test_normalisations() -> None:
    channel, mean, none = (load_images(DataConfig(normalise=n)) for n in ("channel", "mean", "none"))
    assert (mean.mean, mean.std) == (channel.mean, (1.0,))
    assert (none.mean, none.std) == ((0.0,), (1.0,))
    assert channel.std != (1.0,)


# --- image folders ----------------------------------------------------------------------------------------


def test_a_folder_with_splits(image_folder: Write) -> None:
    root = image_folder(("train", "test"))
    data = load_images(DataConfig(source=str(root)))
    train, test = memory(data)
    assert (data.name, data.classes, len(train), len(test), data.note) == ("images", ("cat", "dog"), 12, 12, "")
    first = torch.from_numpy(np.array(Image.open(root / "train/cat/0.png"))).permute(2, 0, 1)
    assert torch.equal(train.images[0], first)
    assert train.labels.tolist() == [0] * 6 + [1] * 6


def test_a_folder_without_splits_holds_out_a_test(image_folder: Write) -> None:
    data = load_images(DataConfig(source=str(image_folder((), n=10))))
    train, test = memory(data)
    assert (len(train), len(test)) == (16, 4)
    assert test.labels.bincount().tolist() == [2, 2]
    assert "no test split: 4 images" in data.note
    assert not {bytes(x.numpy()) for x in train.images} & {bytes(x.numpy()) for x in test.images}


def test_validation_stands_in_for_a_missing_test(image_folder: Write) -> None:
    data = load_images(DataConfig(source=str(image_folder(("train", "val")))))
    assert "scored on split 'validation'" in data.note


def test_the_datasets_own_validation_split_is_used(image_folder: Write) -> None:
    root = str(image_folder(("train", "val", "test")))
    data = load_images(DataConfig(source=root, validation_split="val"))
    assert isinstance(data.validation, Split)
    train, test = memory(data)
    seen = [{bytes(x.numpy()) for x in part.images} for part in (train, data.validation, test)]
    assert [len(s) for s in seen] == [12, 12, 12]
    assert len(set.union(*seen)) == 36


def test_an_extra_split_trains_too(image_folder: Write) -> None:
    data = load_images(DataConfig(source=str(image_folder(("train", "extra", "test"))), extra_split="extra"))
    assert (len(data.train), len(data.test)) == (24, 12)


def test_other_files_are_left_alone(image_folder: Write) -> None:
    root = image_folder(())
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / ".git").mkdir()
    (root / "cat" / "deeper").mkdir()
    os.rename(root / "cat" / "0.png", root / "cat" / "deeper" / "0.PNG")
    data = load_images(DataConfig(source=str(root)))
    assert len(data.train) + len(data.test) == 12


def test_grey_folders_have_one_channel_and_mixed_ones_three(image_folder: Write, tmp_path: Path) -> None:
    root = image_folder(("train", "test"), mode="L")
    assert load_images(DataConfig(source=str(root))).channels == 1
    assert load_images(DataConfig(source=str(root), channels=3)).channels == 3
    Image.new("RGB", (8, 8), (255, 0, 0)).save(root / "test/cat/red.png")
    data = load_images(DataConfig(source=str(root)))
    assert (data.channels, memory(data)[1].channels) == (1, 1)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(root / "train/cat/red.png")
    data = load_images(DataConfig(source=str(root)))
    assert (data.channels, memory(data)[1].channels) == (3, 3)


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_images_of_any_size_come_to_one(image_folder: Write, resize: Resize) -> None:
    root = image_folder(("train", "test"), sizes=((30, 20), (12, 40), (16, 16), (5, 6)))
    data = load_images(DataConfig(source=str(root), size=16, resize=resize))
    assert data.size == (16, 16)


def test_the_resize_policies_do_what_they_say(tmp_path: Path) -> None:
    from polypath.data.fit import fit

    wide = np.zeros((8, 16, 3), np.uint8)  # red, green, blue, white from left to right
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]):
        wide[:, 4 * i : 4 * i + 4] = colour
    image = Image.fromarray(wide)
    crop, squash, pad = (np.asarray(fit(image, 8, policy)) for policy in ("crop", "squash", "pad"))
    assert np.array_equal(crop, wide[:, 4:12])
    assert squash[0, 0].tolist() == [255, 0, 0]
    assert squash[7, 7].tolist() == [255, 255, 255]
    assert pad[0].max() == pad[7].max() == 0
    assert pad[3, 0].tolist() == [255, 0, 0]
    assert fit(image, None, "crop") is image


def test_images_of_different_sizes_need_a_size(image_folder: Write) -> None:
    root = image_folder(("train", "test"), sizes=((8, 8), (9, 8)))
    with pytest.raises(ValueError, match=r"size = None: images of split 'train' differ in size .* 8x8"):
        load_images(DataConfig(source=str(root)))


def test_resize_to_keeps_a_margin(image_folder: Write) -> None:
    root = image_folder(sizes=((30, 20),))
    data = load_images(DataConfig(source=str(root), size=8, resize_to=12))
    assert (data.train.size, data.size) == ((12, 12), (8, 8))


# --- parquet ----------------------------------------------------------------------------------------------


def test_columns_are_found_by_their_types(parquet_folder: Write) -> None:
    from datasets import Value

    root = parquet_folder(columns={"id": list(range(12))}, features={"id": Value("int64")})
    data = load_images(DataConfig(source=str(root)))
    assert (data.classes, len(data.train), len(data.test), data.name) == (("a", "b", "c"), 12, 12, "table")


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([i % 3 + 1 for i in range(12)], "int64", ("1", "2", "3")),
        ([20 if i % 2 else 100 for i in range(12)], "int32", ("20", "100")),
        (["cat" if i % 2 else "ant" for i in range(12)], "string", ("ant", "cat")),
        ([i % 2 == 0 for i in range(12)], "bool", ("False", "True")),
    ],
)
def test_labels_may_be_numbers_or_text(parquet_folder: Write, values: list, kind: str, classes: tuple) -> None:
    from datasets import Value

    root = parquet_folder(columns={"label": values}, features={"label": Value(kind)})
    data = load_images(DataConfig(source=str(root)))
    assert data.classes == classes
    assert [data.classes[i] for i in memory(data)[0].labels] == [str(v) for v in values]


def test_a_column_called_label_goes_before_other_numbers(parquet_folder: Write) -> None:
    from datasets import Value

    numbers = {"label": Value("int64"), "width": Value("int64")}
    root = parquet_folder(columns={"width": list(range(12))}, features=numbers)
    assert load_images(DataConfig(source=str(root))).classes == ("0", "1", "2")


def test_files_without_the_librarys_types_are_read(parquet_folder: Write) -> None:
    import pyarrow.parquet as pq

    root = parquet_folder()
    for file in root.rglob("*.parquet"):
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    data = load_images(DataConfig(source=str(root)))
    assert (data.classes, len(data.train)) == (("0", "1", "2"), 12)


def test_subsets_are_chosen_by_name(parquet_folder: Write) -> None:
    parquet_folder(at="small", n=6)
    root = parquet_folder(at="large")
    with pytest.raises(ValueError, match=r"subset = None: folder .* has several subsets; choose one of large, small"):
        load_images(DataConfig(source=str(root)))
    assert len(load_images(DataConfig(source=str(root), subset="small")).train) == 6
    with pytest.raises(ValueError, match=r"subset = 'tiny': does not exist; folder .* has large, small"):
        load_images(DataConfig(source=str(root), subset="tiny"))


def test_splits_in_folders_and_shards_are_found(parquet_folder: Write) -> None:
    root = parquet_folder()
    for split in ("train", "test"):
        (root / split).mkdir()
        os.rename(root / f"data/{split}-00000-of-00001.parquet", root / split / "0000.parquet")
    (root / "train" / "0001.parquet").write_bytes((root / "train" / "0000.parquet").read_bytes())
    data = load_images(DataConfig(source=str(root)))
    assert (len(data.train), len(data.test)) == (24, 12)


def test_secret_labels_are_not_scored_on(parquet_folder: Write) -> None:
    parquet_folder(("train", "validation"))
    root = parquet_folder(("test",), columns={"label": [-1] * 12})
    data = load_images(DataConfig(source=str(root)))
    assert "scored on split 'validation'" in data.note
    with pytest.raises(ValueError, match=r"split 'test' of folder .* has no labels"):
        load_images(DataConfig(source=str(root), test_split="test"))


# --- the real thing ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar10(cifar10: Path) -> None:
    config = DataConfig(source=str(cifar10), validation=5000, train_images=2000, test_images=500)
    data = load_images(config)
    train, test = memory(data)
    assert data.validation is not None
    assert (len(train), len(data.validation), len(test)) == (2000, 5000, 500)
    assert train.labels.bincount().tolist() == [200] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert data.size == (32, 32)
    assert "JPEG-coded CIFAR-10, which is not the published setting" in data.note
    assert all(abs(m - p) < 0.01 for m, p in zip(data.mean, (0.4914, 0.4822, 0.4465), strict=True))
    assert all(abs(s - p) < 0.01 for s, p in zip(data.std, (0.2470, 0.2435, 0.2616), strict=True))
    assert load_images(config).fingerprint == data.fingerprint  # from the cache, the same pixels
