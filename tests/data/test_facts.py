"""Facts about images before any is decoded."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.conftest import encoded, picture
from polypath.data.config import DataConfig
from polypath.data.facts import LOOKED
from polypath.data.images import Header, probe
from polypath.data.sources import load_images, look

Write = Callable[..., Path]


def test_classes_sizes_and_test_images(image_folder: Write) -> None:
    root = image_folder(("train", "test"), n=6, sizes=((40, 30), (20, 50)))
    (root / "train" / "cat" / "0.png").unlink()
    facts = look(DataConfig(source=str(root)))
    assert facts.classes == {"cat": 5, "dog": 6}
    assert (facts.images, facts.balance) == (11, 1.2)
    assert facts.side in (20, 30)
    assert (facts.alike, facts.grey, facts.tested, facts.validation_split) == (False, False, True, None)


def test_squares_of_one_size(image_folder: Write) -> None:
    facts = look(DataConfig(source=str(image_folder((), sizes=((28, 28),), mode="L"))))
    assert (facts.side, facts.alike, facts.grey, facts.tested) == (28, True, True, False)


def test_a_validation_split_is_reported_unless_it_is_tested_on(image_folder: Write) -> None:
    root = image_folder(("train", "valid", "test"))
    assert look(DataConfig(source=str(root))).validation_split == "validation"
    assert look(DataConfig(source=str(root), test_split="validation")).validation_split is None
    assert load_images(DataConfig(source=str(root), validation_split="validation")).validation is not None


def test_without_a_test_split_the_validation_split_is_tested_on(image_folder: Write) -> None:
    facts = look(DataConfig(source=str(image_folder(("train", "valid")))))
    assert (facts.tested, facts.validation_split) == (True, None)


@pytest.mark.parametrize(
    ("modes", "grey"),
    [(("L", "1", "LA", "I;16"), True), (("L", "P"), False), (("L", "RGBA"), False), (("RGB",), False)],
)
def test_grey_if_no_image_has_colour(tmp_path: Path, modes: tuple[str, ...], grey: bool) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i, mode in enumerate(modes):
            levels = Image.fromarray(np.full((9, 9), 60_000, np.uint16)) if mode == "I;16" else picture(i).convert(mode)
            (tmp_path / name / f"{i}.png").write_bytes(encoded(levels))
    assert look(DataConfig(source=str(tmp_path))).grey is grey


def test_nothing_is_decoded_and_few_heads_are_read(tmp_path: Path, monkeypatch, caplog) -> None:
    out = io.BytesIO()
    picture(1, (16, 12)).save(out, "PNG")
    cut = out.getvalue()[:-30]  # its head is whole, its pixels are not
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(300):
            (tmp_path / name / f"{i}.png").write_bytes(cut if i else b"no image")
    reads: list[int] = []

    def counted(*given: Any) -> Header:
        reads.append(1)
        return probe(*given)

    monkeypatch.setattr("polypath.data.facts.probe", counted)
    with caplog.at_level(logging.INFO, "polypath"):
        facts = look(DataConfig(source=str(tmp_path)))
    assert (facts.side, facts.images) == (12, 600)
    assert 100 < len(reads) <= LOOKED
    assert caplog.text == ""  # it is told when they are read


def test_no_image_can_be_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image that can be read"):
        look(DataConfig(source=str(tmp_path)))


def test_tables_and_digits_have_facts_too(parquet_folder: Write) -> None:
    facts = look(DataConfig(source=str(parquet_folder(size=(24, 24)))))
    assert (dict(facts.classes), facts.side, facts.alike) == ({"a": 4, "b": 4, "c": 4}, 24, True)
    digits = look(DataConfig())
    assert (digits.images, digits.side, digits.grey, digits.tested) == (1437, 8, True, True)
