"""Read datasets from folders of image files: find the splits, the classes and the files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from polypath.core.display import printable
from polypath.data.decode import Raw
from polypath.data.identity import Identity, fingerprint, part_of, read_files
from polypath.data.images import OWN
from polypath.data.listing import EXTENSIONS, LeftOut, folders_in, images_in
from polypath.data.metadata import FILES, Row, metadata_of, names_labels, read_metadata
from polypath.data.names import split_of, splits_among
from polypath.storage.files import read_regular

PICKLED = {
    "CIFAR-100": ("train", "test", "meta"),
    "CIFAR-10": ("data_batch_1", "test_batch", "batches.meta"),
}
"""Files in the archives that torchvision unpacks. They are pickles, which are never loaded."""
PARQUET = {"CIFAR-100": "uoft-cs/cifar100", "CIFAR-10": "uoft-cs/cifar10"}


@dataclass(frozen=True)
class FileTable:
    """One split of a folder of images. ``labels`` are the names of class folders, or they are from a metadata file."""

    split: str
    root: Path
    files: np.ndarray  # paths relative to root, as one array of bytes: str objects would be copied into every worker
    labels: list[Any]
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        return self._known[0]

    @property
    def identity(self) -> Identity:
        return self._known[1]

    @cached_property
    def _known(self) -> tuple[str, Identity]:
        """The fingerprint and the identity. The files are read once to compute both."""
        facts, whole = read_files([self.path(row) for row in range(len(self))], self.root)
        classes: dict[Any, list[int]] = {}
        for row, label in enumerate(self.labels):
            classes.setdefault(label, []).append(row)
        parts = {f"{self.split}/{k}": part_of((facts[row] for row in rows), len(rows)) for k, rows in classes.items()}
        return fingerprint(facts, whole), parts

    def read(self, rows: Sequence[int]) -> list[Raw]:
        return [_read(self.path(row)) for row in rows]

    def path(self, row: int) -> Path:
        return self.root / os.fsdecode(bytes(self.files[row]))

    def name(self, row: int) -> str:
        return printable(os.fsdecode(bytes(self.files[row])))


def _read(file: Path) -> Raw:
    try:
        return read_regular(file, OWN.bytes + 1)
    except OSError as error:
        return OSError(error.strerror or str(error))


@dataclass(frozen=True)
class _Place:
    """The location of a split: its folder, and the metadata file with its labels (None if each class has a folder)."""

    folder: Path
    metadata: Path | None = None
    only: str | None = None  # use only the rows of this split


class ImageFolder:
    """A dataset of image files.

    The images of a split are in one folder per class (and its sub-folders), or in one folder with a ``metadata.csv`` or
    ``metadata.jsonl``. Each split has a folder (``train``, ``Test_set``, ``seg_train``, …). Without such folders, all
    images are one split, unless the metadata has a column ``split``. Hidden and system files are ignored. Files that do
    not have the suffix of an image are left out and listed in ``told``.

    Args:
        split_names: names of the requested splits.
        columns: names of the requested image and label columns.
        skip_broken: leave out dangling links, instead of raising an error.

    Attributes:
        splits: the location of each split.
        told: phrases that say how the folder was interpreted. The list is complete when the splits have been opened.

    Raises:
        ValueError: the images of the splits have no labels, folders may be either splits or classes, there are dangling
            links, or the folder contains CIFAR as pickles.
    """

    def __init__(
        self,
        root: Path,
        subset: str | None,
        split_names: Sequence[str] = (),
        *,
        columns: tuple[str | None, str | None] = (None, None),
        skip_broken: bool = False,
    ) -> None:
        if subset is not None:
            root = _below(root, subset)
        self.root, self.where = root, f"folder {printable(str(root))}"
        self.told: list[str] = []
        self._columns, self._skip_broken = columns, skip_broken
        self._rows: dict[tuple[Path, str | None, str | None], list[Row]] = {}
        _refuse_pickles(root)
        self.splits: dict[str, _Place] = self._find(_unwrapped(root), split_names)

    # --- which folder is what ----------------------------------------------------------------------------

    def _find(self, base: Path, given: Sequence[str]) -> dict[str, _Place]:
        folders = {folder.name: folder for folder in self._folders(base)}
        found = {split: folders[name] for split, name in splits_among(folders, given).items()}
        places = {split: place for split, folder in found.items() if (place := self._labelled(folder, base))}
        others = [folder for name, folder in folders.items() if folder not in found.values()]
        beside = [folder.name for folder in others if next(images_in(folder, deep=False), None)]
        if not places:
            if (metadata := metadata_of(base)) and (not folders or names_labels(metadata, *self._columns)):
                return self._by_column(base, metadata)
            if found and (len(found) > 1 or not beside):
                raise ValueError(
                    f"DataConfig.source: {self.where} has the splits {_names(found.values())}, but their images have "
                    f"no labels: put the images into one folder for each class, or add a {FILES[0]} with the columns "
                    "file_name and label to each split (DataConfig.image_column and label_column select other columns)"
                )
            return {"train": _Place(base)}
        if len(found) == 1 and beside:
            name = next(iter(found.values())).name
            raise ValueError(
                f"DataConfig.source: {self.where} has either the split {name!r} or the classes "
                f"{', '.join(map(printable, [name, *beside]))}: give {printable(str(base / name))} if this folder is a "
                f"split; if all of them are classes, move them into one folder"
            )
        unlabelled = [folder.name for split, folder in found.items() if split not in places]
        if left := sorted([*unlabelled, *(folder.name for folder in others)]):
            self.told.append(f"left out: folders {', '.join(map(printable, left))}")
        return places

    def _labelled(self, folder: Path, base: Path) -> _Place | None:
        """Return the location of a split, or None if neither folders nor metadata give the classes of its images."""
        metadata, classes = metadata_of(folder), self._folders(folder)
        if metadata and (not classes or names_labels(metadata, *self._columns)):
            return _Place(folder, metadata)
        lone = classes
        while len(lone) == 1 and (lone[0].name == folder.name or split_of(lone[0].name)) and self._folders(lone[0]):
            folder, lone = lone[0], self._folders(lone[0])
        if lone:
            return _Place(folder)
        return _Place(folder, metadata) if (metadata := metadata_of(base)) else None

    def _by_column(self, base: Path, metadata: Path) -> dict[str, _Place]:
        splits = list(dict.fromkeys(row.split for row in self._read(metadata, *self._columns)))
        if None in splits and len(splits) > 1:
            raise ValueError(f"{printable(str(metadata))}: some rows have a split and others have none")
        return {split or "train": _Place(base, metadata, split) for split in splits}

    def _folders(self, folder: Path) -> list[Path]:
        return folders_in(folder, skip_broken=self._skip_broken)

    # --- a split's images --------------------------------------------------------------------------------

    def open(self, split: str, image: str | None, label: str | None) -> FileTable:
        """List the images of a split.

        Raises:
            ValueError: there are no class folders, a class has no images, a column is requested but the split has no
                columns, or the metadata cannot be used.
        """
        place, left_out = self.splits[split], LeftOut()
        if place.metadata is not None:
            files, labels = self._listed(place, image, label)
        else:
            for name, column in (("image_column", image), ("label_column", label)):
                if column is not None:
                    raise ValueError(
                        f"DataConfig.{name} = {column!r}: {self.where} has image files, which have no columns"
                    )
            files, labels = self._in_folders(place.folder, left_out)
        at = place.folder.relative_to(self.root)
        here = printable(place.folder.name if at == Path() else str(at))
        how = f" by {printable(str(place.metadata.relative_to(self.root)))}" if place.metadata else ""
        self.told.append(f"{split} is {here}/{how} ({len(set(labels)):,} classes, {len(files):,} images)")
        if told := left_out.told(self.root):
            self.told.append(f"left out: {'; '.join(told)}")
        names = np.array([os.fsencode(file.relative_to(self.root)) for file in files], dtype=np.bytes_)
        return FileTable(split, self.root, names, labels)

    def _in_folders(self, folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Any]]:
        files, labels = [], []
        classes = self._folders(folder)
        if not classes:
            raise ValueError(
                f"DataConfig.source: {self.where} must contain parquet files, one folder of images for each class, "
                f"or a {FILES[0]} with the labels"
            )
        for path in images_in(folder, deep=False):
            left_out.add(path)
        if len({printable(path.name) for path in classes}) < len(classes):
            raise ValueError(f"{self.where}: two class folders have the same name: {_names(classes)}")
        for path in classes:
            found = sorted(images_in(path, above=(self.root, folder), left_out=left_out))
            if not found:
                raise ValueError(
                    f"class folder {printable(str(path))} has no files with an image suffix "
                    f"({', '.join(sorted(EXTENSIONS))})"
                )
            files += found
            labels += [printable(path.name)] * len(found)
        return files, labels

    def _listed(self, place: _Place, image: str | None, label: str | None) -> tuple[list[Path], list[Any]]:
        assert place.metadata is not None
        rows, base = self._read(place.metadata, image, label), place.metadata.parent
        if place.folder != base:  # one file for several splits
            rows = [row for row in rows if (base / row.file).is_relative_to(place.folder)]
        elif place.only is not None:
            rows = [row for row in rows if row.split == place.only]
        files = [base / row.file for row in rows]
        if more := len(set(images_in(place.folder)) - set(files)) if place.only is None else 0:
            self.told.append(f"left out: {more:,} images of {printable(place.folder.name)} without a row")
        return files, [row.label for row in rows]

    def _read(self, metadata: Path, image: str | None, label: str | None) -> list[Row]:
        key = (metadata, image, label)
        if key not in self._rows:
            self._rows[key] = read_metadata(metadata, image, label)
        return self._rows[key]


def _refuse_pickles(root: Path) -> None:
    for folder in (root, *folders_in(root)):
        for dataset, names in PICKLED.items():
            if all((folder / name).is_file() for name in names):
                raise ValueError(
                    f"DataConfig.source: folder {printable(str(folder))} has {dataset} as Python pickles, which are "
                    "not loaded because they can run code; convert them to one folder of images for each class (see "
                    f"docs/data.md), or use the parquet files of {PARQUET[dataset]} on the Hugging Face Hub"
                )


def _below(root: Path, subset: str) -> Path:
    legal = [f.name for f in folders_in(root)]
    if subset not in legal:
        raise ValueError(
            f"DataConfig.subset = {subset!r}: does not exist; folder {root} has {', '.join(legal) or 'no sub-folders'}"
        )
    return root / subset


def _unwrapped(root: Path) -> Path:
    """Go down from ``root`` while a folder has only one sub-folder. Archives often unpack into a single folder."""
    base = root
    while len(inner := folders_in(base)) == 1 and not (split_of(inner[0].name) or metadata_of(base)):
        if next(images_in(base, deep=False), None) or not folders_in(inner[0]):
            return base
        base = inner[0]
    return base


def _names(folders: Iterable[Path]) -> str:
    return ", ".join(sorted(printable(folder.name) for folder in folders))
