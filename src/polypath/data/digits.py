"""The digits of scikit-learn, which need no download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from polypath.data.decode import Raw
from polypath.data.identity import Identity, Part
from polypath.data.seeds import generator
from polypath.data.splits import FIXED, stratified

DIGITS_TEST = 360


@dataclass(frozen=True)
class DigitsTable:
    """A split of scikit-learn's digits. ``read`` returns PIL images."""

    split: str
    pixels: np.ndarray
    labels: list[Any]
    classes: tuple[str, ...] | None = tuple("0123456789")
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> Identity:
        found = hashlib.blake2b(self.pixels.tobytes() + repr(self.labels).encode(), digest_size=16)
        return {self.split: Part(len(self), self.pixels.nbytes, found.hexdigest())}

    def read(self, rows: Sequence[int]) -> list[Raw]:
        return [Image.fromarray(self.pixels[row]) for row in rows]

    def name(self, row: int) -> str:
        return f"row {row}"


class Digits:
    """The 1,797 grey 8×8 digits that come with scikit-learn (UCI): 1,437 training and 360 test images.

    The splits are stratified and drawn with a fixed seed. Grey levels 0 … 16 become 0 … 255.
    """

    where = "scikit-learn's digits"

    def __init__(self) -> None:
        pixels, labels = _digits()
        test = stratified(
            torch.from_numpy(labels), DIGITS_TEST, "proportional", generator(FIXED, "digits"), "digits"
        ).numpy()
        self.splits = {"train": ~test, "test": test}
        self._pixels, self._labels = pixels, labels
        self.told: list[str] = []

    def open(self, split: str, image: str | None, label: str | None) -> DigitsTable:
        for name, column in (("image_column", image), ("label_column", label)):
            if column is not None:
                raise ValueError(f"DataConfig.{name} = {column!r}: {self.where} have no columns")
        which = self.splits[split]
        return DigitsTable(split, self._pixels[which], self._labels[which].tolist())


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)
