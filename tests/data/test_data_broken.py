"""User errors and damaged files: one clear message each, and nothing half-written."""

from __future__ import annotations

import errno
import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.conftest import encoded, picture
from polypath.core.home import cache_folder
from polypath.data import DataConfig, Split, cache, load_images, tables
from polypath.data.images import BrokenImage, open_image

Write = Callable[..., Path]


# --- unknown sources, splits, columns ---------------------------------------------------------------------


def test_a_hub_name_without_a_network_fails_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    start = time.monotonic()
    with pytest.raises(
        ValueError, match=r"source = 'nobody/nothing': .* cannot be reached \(Name or service not known\)"
    ):
        load_images(DataConfig(source="nobody/nothing"))
    assert time.monotonic() - start < 5
    import datasets.config
    import huggingface_hub.constants

    assert not datasets.config.HF_HUB_OFFLINE  # as it was before
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_dataset_that_the_hub_does_not_have_or_keeps_behind_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def answer(kind: type[Exception]) -> Callable[..., None]:
        def dataset_info(*args: Any, **kwargs: Any) -> None:
            raise kind.__new__(kind)

        return dataset_info

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", answer(errors.GatedRepoError))
    with pytest.raises(ValueError, match=r"source = 'ILSVRC/imagenet-1k': this dataset is gated"):
        load_images(DataConfig(source="imagenet"))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", answer(errors.RepositoryNotFoundError))
    with pytest.raises(ValueError, match="source = 'a/b': is neither a local folder nor a dataset on the Hub"):
        load_images(DataConfig(source="a/b"))


def test_an_earlier_download_serves_without_a_network(
    parquet_folder: Write, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    import huggingface_hub
    from datasets import load_dataset

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    load_dataset(str(parquet_folder()), cache_dir=str(cache_folder / "other"))
    made = next((cache_folder / "other").rglob("dataset_info.json")).parent
    home = cache_folder / "hf" / "some___thing" / "default" / "0.0.0" / ("0" * 40)
    home.mkdir(parents=True)
    for file in made.iterdir():
        (home / file.name.replace("table-", "thing-")).write_bytes(file.read_bytes())
    info = (home / "dataset_info.json").read_text()
    (home / "dataset_info.json").write_text(info.replace('"dataset_name": "table"', '"dataset_name": "thing"'))
    data = load_images(DataConfig(source="some/thing"))
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("some/thing", ("a", "b", "c"), 12, 12)


@pytest.mark.parametrize("source", ["./nothing", "/nothing/here", "~/no/such/folder", "a/b/c"])
def test_a_folder_that_is_not_there(source: str) -> None:
    with pytest.raises(ValueError, match=f"source = '{re.escape(source)}': does not exist; give .* digits, cifar10"):
        load_images(DataConfig(source=source))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.png': is not a folder; give a folder"):
        load_images(DataConfig(source=str(tmp_path / "x.png")))


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must contain parquet files, one folder of images for each class"):
        load_images(DataConfig(source=str(tmp_path)))
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*cat has no files with an image suffix"):
        load_images(DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize("field", ["train_split", "extra_split", "test_split", "validation_split"])
def test_unknown_splits_list_the_legal_ones(image_folder: Write, parquet_folder: Write, field: str) -> None:
    for source in ("digits", str(image_folder()), str(parquet_folder())):
        fields: dict[str, Any] = {"source": source, field: "trial"}
        with pytest.raises(ValueError, match=f"DataConfig.{field} = 'trial': .* has only the splits .*t"):
            load_images(DataConfig(**fields))


def test_digits_and_folders_have_no_subsets_or_columns(image_folder: Write) -> None:
    root = str(image_folder())
    cases: list[dict[str, Any]] = [{"subset": "x"}, {"image_column": "img"}, {"label_column": "label"}]
    for fields in cases:
        for source in ("digits", root):
            with pytest.raises(ValueError, match=f"DataConfig.{next(iter(fields))} = '"):
                load_images(DataConfig(source=source, **fields))


def test_unknown_columns_list_the_legal_ones(parquet_folder: Write) -> None:
    root = str(parquet_folder())
    with pytest.raises(ValueError, match=r"image_column = 'image': is not a column of .* img \(.*\), label \(int64\)"):
        load_images(DataConfig(source=root, image_column="image"))
    with pytest.raises(ValueError, match=r"label_column = 'y': is not a column"):
        load_images(DataConfig(source=root, label_column="y"))
    with pytest.raises(ValueError, match=r"label_column = 'img': is not a label column"):
        load_images(DataConfig(source=root, label_column="img"))
    with pytest.raises(
        ValueError, match=r"image_column = 'label': is not an image column of .* img \(.*\), label \(int64\)"
    ):
        load_images(DataConfig(source=root, image_column="label"))


def test_ambiguous_columns_list_the_candidates(parquet_folder: Write) -> None:
    from datasets import ClassLabel

    root = str(parquet_folder(columns={"coarse": [0] * 12}, features={"coarse": ClassLabel(names=["a", "b"])}))
    with pytest.raises(
        ValueError,
        match=r"label_column = None: .* several columns that can be the label_column; choose one of label, coarse",
    ):
        load_images(DataConfig(source=root))
    assert load_images(DataConfig(source=root, label_column="label")).classes == ("a", "b", "c")


def test_no_column_of_the_kind(parquet_folder: Write) -> None:
    from datasets import Value

    root = parquet_folder(columns={"weight": [0.5] * 12}, features={"weight": Value("float32")}, drop=("label",))
    with pytest.raises(
        ValueError, match=r"label_column = None: .* has no column that can be the label_column.*weight \(float32\)"
    ):
        load_images(DataConfig(source=str(root)))
    root = parquet_folder(drop=("img",))
    with pytest.raises(ValueError, match=r"image_column = None: .* has no column that can be the image_column"):
        load_images(DataConfig(source=str(root)))


# --- labels -----------------------------------------------------------------------------------------------


def test_a_missing_label_is_named(parquet_folder: Write) -> None:
    root = parquet_folder(columns={"label": [0, 1, 2, None] * 3})
    with pytest.raises(ValueError, match=r"label_column = 'label': row 3 of split 'train' .* has no label"):
        load_images(DataConfig(source=str(root)))


def test_a_class_that_training_does_not_have(image_folder: Write) -> None:
    root = image_folder()
    os.rename(root / "test/cat", root / "test/cow")
    with pytest.raises(ValueError, match=r"split 'test' of .* labels that no training image has: 'cow'"):
        load_images(DataConfig(source=str(root)))


def test_classes_named_differently(parquet_folder: Write) -> None:
    from datasets import ClassLabel

    parquet_folder(("train",))
    root = parquet_folder(("test",), features={"label": ClassLabel(names=["c", "b", "a"])})
    with pytest.raises(ValueError, match=r"splits 'test' and 'train' of .* have different class names"):
        load_images(DataConfig(source=str(root)))


def test_a_single_class_is_refused(image_folder: Write) -> None:
    with pytest.raises(ValueError, match="has a single class, 'cat'"):
        load_images(DataConfig(source=str(image_folder(classes=("cat",)))))


# --- broken images ----------------------------------------------------------------------------------------

JPEG, PNG = encoded(picture(0, (64, 64)), "JPEG"), encoded(picture(0, (64, 64)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"GIF89a", "."),
        (b"hello, I am a text" * 10, "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:100], "."),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:60] + bytes(40) + PNG[100:], "."),
        (ValueError("no such file"), "no such file"),
    ],
)
def test_each_kind_of_broken_image(data: Any, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason):
        open_image(data)


def test_intact_images_of_every_mode() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        out = io.BytesIO()
        Image.new(mode, (5, 4)).save(out, "TIFF" if mode == "CMYK" else "PNG")
        image = open_image(out.getvalue())
        assert image.size == (5, 4)
        assert image.mode == ("L" if mode in ("1", "L", "LA", "I;16") else "RGB")
    out = io.BytesIO()
    Image.fromarray(np.full((2, 2), 0xABCD, np.uint16)).save(out, "PNG")
    assert np.asarray(open_image(out.getvalue())).tolist() == [[0xAB, 0xAB]] * 2
    out = io.BytesIO()
    Image.new("F", (2, 2)).save(out, "TIFF")
    with pytest.raises(BrokenImage, match="mode F"):
        open_image(out.getvalue())


def test_images_are_turned_upright() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (8, 4)).save(out, "JPEG", exif=exif)
    assert open_image(out.getvalue()).size == (4, 8)


def break_some(root: Path) -> None:
    (root / "train/cat/1.png").write_bytes(b"")
    (root / "train/dog/2.png").write_bytes(PNG[:200])
    (root / "test/dog/0.png").write_bytes(b"no image")


def test_broken_files_are_named_and_skipped_only_if_asked(image_folder: Write, cache_folder: Path) -> None:
    root = image_folder()
    break_some(root)
    with pytest.raises(ValueError, match=r"2 of 12 images of split 'train' cannot be read: train/cat/1\.png") as caught:
        load_images(DataConfig(source=str(root)))
    for part in (
        "train/cat/1.png (the image has no bytes)",
        "train/dog/2.png (image file is truncated)",
        "broken='skip'",
    ):
        assert part in str(caught.value)
    assert not list(cache_folder.glob("*"))
    for _ in range(2):  # decoded, then from the cache
        data = load_images(DataConfig(source=str(root), broken="skip"))
        assert (len(data.train), len(data.test)) == (10, 11)
        assert isinstance(data.train, Split)
        assert data.train.labels.tolist() == [0] * 5 + [1] * 5
        assert [name.split(" ")[0] for name in data.skipped] == ["train/cat/1.png", "train/dog/2.png", "test/dog/0.png"]
        assert "2 broken images of 'train' skipped" in data.note


def test_broken_rows_are_named(parquet_folder: Write) -> None:
    images = [{"bytes": encoded(picture(i)), "path": f"{i}.png"} for i in range(12)]
    images[5] = {"bytes": JPEG[:300], "path": "5.jpg"}
    images[7] = {"bytes": b"", "path": "7.png"}
    root = str(parquet_folder(columns={"img": images}))
    with pytest.raises(ValueError, match=r"2 of 12 images of split 'train' cannot be read: row 5 \(5\.jpg\)"):
        load_images(DataConfig(source=root))
    assert len(load_images(DataConfig(source=root, broken="skip")).train) == 10


def test_many_broken_images_are_counted_not_listed(image_folder: Write) -> None:
    root = image_folder(n=10)
    for file in (root / "train/cat").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"10 of 20 images .* and 5 more;"):
        load_images(DataConfig(source=str(root)))


def test_a_split_without_readable_images_is_refused(image_folder: Write) -> None:
    root = image_folder()
    for file in root.rglob("train/*/*.png"):
        file.write_bytes(b"x")
    with pytest.raises(ValueError, match="split 'train' has no image that can be read"):
        load_images(DataConfig(source=str(root), broken="skip"))


# --- damaged parquet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "middle"])
def test_a_damaged_parquet_file_is_named(parquet_folder: Write, damage: str) -> None:
    root = parquet_folder(size=(32, 32))
    file = next(root.rglob("train-*.parquet"))
    whole = file.read_bytes()
    middle = len(whole) // 3
    file.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"hello" * 100,
            "middle": b"PAR1" + b"\xff" * middle + whole[4 + middle :],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet: is damaged or not a parquet file"):
        load_images(DataConfig(source=str(root)))
    with pytest.raises(ValueError, match=r"cannot be read"):
        load_images(DataConfig(source=str(root), streaming=True, size=8, workers=0))


def test_files_of_different_columns(parquet_folder: Write) -> None:
    from datasets import Value

    root = parquet_folder(("train",))
    os.rename(root / "data/train-00000-of-00001.parquet", root / "data/train-00000-of-00002.parquet")
    parquet_folder(("train",), columns={"id": list(range(12))}, features={"id": Value("int64")})
    os.rename(root / "data/train-00000-of-00001.parquet", root / "data/train-00001-of-00002.parquet")
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet: has columns \['img', 'label', 'id'\]"):
        load_images(DataConfig(source=str(root)))


# --- the cache --------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Splits that are decoded from now on."""
    from polypath.data import sources

    seen: list[str] = []
    real = sources.decode_all

    def decode_all(encoded: Any, **options: Any) -> Any:
        seen.append(encoded.split)
        return real(encoded, **options)

    monkeypatch.setattr(sources, "decode_all", decode_all)
    return seen


def test_images_are_decoded_once(image_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = image_folder(), counted(monkeypatch)
    config = DataConfig(source=str(root))
    first, again = load_images(config), load_images(config)
    assert seen == ["train", "test"]
    assert first.fingerprint == again.fingerprint
    load_images(DataConfig(source=str(root), train_images=4, split_seed=3, validation=2))
    assert len(seen) == 2
    load_images(DataConfig(source=str(root), size=4))
    load_images(DataConfig(source=str(root), cache=False))
    assert len(seen) == 6


def test_a_changed_image_is_decoded_again(image_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = image_folder(), counted(monkeypatch)
    config, file = DataConfig(source=str(root)), root / "train/cat/0.png"
    before, times = load_images(config), file.stat()
    pixels = np.array(Image.open(file))[::-1]
    Image.fromarray(pixels).save(file, compress_level=0)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_images(config).fingerprint != before.fingerprint
    assert seen == ["train", "test", "train"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "foreign"])
def test_a_damaged_cache_is_rebuilt(image_folder: Write, cache_folder: Path, damage: str) -> None:
    from safetensors.torch import save_file

    config = DataConfig(source=str(image_folder()))
    before = load_images(config)
    for file in cache_folder.glob("*.safetensors"):
        whole = bytearray(file.read_bytes())
        if damage == "flip":
            whole[-300] ^= 1
        cut = {"cut": whole[:-50], "flip": whole, "empty": b"", "text": b"x" * 500, "foreign": whole}[damage]
        file.write_bytes(bytes(cut))
        if damage == "foreign":
            save_file({"weights": torch.zeros(3)}, file)
    with pytest.warns(UserWarning, match=r"are damaged .* and will be decoded again"):
        assert load_images(config).fingerprint == before.fingerprint
    assert load_images(config).fingerprint == before.fingerprint  # and no warning: it is whole again


def test_a_full_disk_only_warns(image_folder: Write, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_file(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "save_file", save_file)
    with pytest.warns(UserWarning, match=r"could not be cached in .* No space left"):
        data = load_images(DataConfig(source=str(image_folder())))
    assert len(data.train) == 12
    assert not list(cache_folder.iterdir())


def test_a_cache_that_cannot_be_a_folder(image_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(load_images(DataConfig(source=str(image_folder()))).train) == 12


def test_without_a_home_folder_nothing_is_cached(image_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("POLYPATH_CACHE")
    monkeypatch.setattr(Path, "home", home)
    assert cache_folder() is None
    assert len(load_images(DataConfig(source=str(image_folder()))).train) == 12


def test_a_home_folder_that_is_not_known_cannot_be_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ValueError, match=r"DataConfig\.source = '~/images': the home folder is unknown"):
        load_images(DataConfig(source="~/images"))


def test_a_table_is_mapped_where_the_librarys_cache_cannot_be_written(
    parquet_folder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(os.devnull) / "datasets")
    data = load_images(DataConfig(source=str(parquet_folder()), streaming=True, size=8, workers=0))
    assert len(data.train) == 12


def test_what_a_killed_process_left_is_swept_up(image_folder: Write, cache_folder: Path) -> None:
    old, new = cache_folder / ".a.safetensors.1.tmp", cache_folder / ".b.safetensors.2.tmp"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (0, 0))
    load_images(DataConfig(source=str(image_folder())))
    assert not old.exists()
    assert new.exists()  # somebody may be writing it


# --- limits -----------------------------------------------------------------------------------------------


def test_more_images_than_memory_holds(image_folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from polypath.data import sources

    monkeypatch.setattr(sources, "MEMORY_SHARE", 1e-9)
    with pytest.raises(ValueError, match=r"streaming = False: 12 images of 64x64 pixels .*--data.streaming"):
        load_images(DataConfig(source=str(image_folder()), size=64))


def test_the_timeout_of_the_hub_is_short() -> None:
    assert tables.HUB_TIMEOUT <= 10
