"""Images that are there without a table: a folder of image files, and scikit-learn's digits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from polypath.data.cache import files_digest
from polypath.data.decode import Raw
from polypath.data.seeds import generator
from polypath.data.splits import FIXED, stratified
from polypath.data.tables import SPLIT_NAMES

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"}
)
DIGITS_TEST = 360


@dataclass(frozen=True)
class FileTable:
    """One split of a folder of images; ``labels`` are the class folders' names."""

    split: str
    root: Path
    files: np.ndarray  # names below root, in bytes: a million strings would be copied into every worker
    labels: list[Any]
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        return files_digest([self.root / self.name(row) for row in range(len(self))], self.root)

    def read(self, rows: Sequence[int]) -> list[Raw]:
        return [_read(self.root / self.name(row)) for row in rows]

    def name(self, row: int) -> str:
        return os.fsdecode(bytes(self.files[row]))


def _read(file: Path) -> Raw:
    try:
        return file.read_bytes()
    except OSError as error:
        return error


class ImageFolder:
    """One folder of images a class, below one folder a split (``train``, ``test``, …) or directly.

    Files of other kinds and hidden ones are left out; images may lie deeper inside a class.
    """

    def __init__(self, root: Path, subset: str | None, split_names: Sequence[str] = ()) -> None:
        if subset is not None:
            root = _below(root, subset)
        self.root, self.where = root, f"folder {root}"
        known = {*SPLIT_NAMES, *split_names}
        folders = _folders(root)
        split_folders = [f for f in folders if f.name.lower() in known and _folders(f)]
        if split_folders:
            self.splits = {SPLIT_NAMES.get(f.name.lower(), f.name): f for f in split_folders}
        else:
            self.splits = {"train": root}

    def open(self, split: str, image: str | None, label: str | None) -> FileTable:
        """List the images of a split.

        Raises:
            ValueError: no class folders, a class without images, a column asked for.
        """
        for field, column in (("image_column", image), ("label_column", label)):
            if column is not None:
                raise ValueError(
                    f"DataConfig.{field} = {column!r}: {self.where} holds image files, which have no columns"
                )
        files, labels = [], []
        classes = _folders(self.splits[split])
        if not classes:
            raise ValueError(
                f"DataConfig.source: {self.where} has neither parquet files nor one folder of images for each class"
            )
        for folder in classes:
            found = _images(folder)
            if not found:
                raise ValueError(f"class folder {folder} has no images ({', '.join(sorted(EXTENSIONS))})")
            files += [os.fsencode(file.relative_to(self.root)) for file in found]
            labels += [folder.name] * len(found)
        return FileTable(split, self.root, np.array(files, dtype=np.bytes_), labels)


def _below(root: Path, subset: str) -> Path:
    legal = [f.name for f in _folders(root)]
    if subset not in legal:
        raise ValueError(f"DataConfig.subset = {subset!r}: folder {root} has {', '.join(legal) or 'no sub-folders'}")
    return root / subset


def _folders(root: Path) -> list[Path]:
    return sorted(Path(e.path) for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        Path(at, name)
        for at, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
    )


@dataclass(frozen=True)
class DigitsTable:
    """A split of scikit-learn's digits; ``read`` gives images that were never encoded."""

    split: str
    pixels: np.ndarray
    labels: list[Any]
    classes: tuple[str, ...] | None = tuple("0123456789")
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[Raw]:
        return [Image.fromarray(self.pixels[row]) for row in rows]

    def name(self, row: int) -> str:
        return f"row {row}"


class Digits:
    """The 1,797 grey 8×8 digits that come with scikit-learn (UCI), 1,437 to train and 360 to score.

    The split is drawn class by class with a fixed seed; grey levels 0 … 16 become 0 … 255.
    """

    where = "scikit-learn's digits"

    def __init__(self) -> None:
        pixels, labels = _digits()
        test = stratified(
            torch.from_numpy(labels), DIGITS_TEST, "proportional", generator(FIXED, "digits"), "digits"
        ).numpy()
        self.splits = {"train": ~test, "test": test}
        self._pixels, self._labels = pixels, labels

    def open(self, split: str, image: str | None, label: str | None) -> DigitsTable:
        for field, column in (("image_column", image), ("label_column", label)):
            if column is not None:
                raise ValueError(f"DataConfig.{field} = {column!r}: {self.where} have no columns")
        which = self.splits[split]
        return DigitsTable(split, self._pixels[which], self._labels[which].tolist())


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)
