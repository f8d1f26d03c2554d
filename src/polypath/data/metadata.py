"""Labels of images in one folder: ``metadata.csv`` or ``metadata.jsonl``, as Hugging Face's imagefolder has them.

A row an image: ``file_name`` (from the metadata's own folder on) and a label; ``split`` where one file is of several.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from polypath.data.labels import LABEL_NAMES
from polypath.data.names import split_of
from polypath.storage.files import parse_json

FILES = ("metadata.csv", "metadata.jsonl")
FILE_COLUMN = "file_name"
SPLIT_COLUMN = "split"
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d*)")


@dataclass(frozen=True)
class Row:
    """An image's file below the metadata's folder, its label, and the split that the file says, if it does."""

    file: str
    label: Any
    split: str | None


def metadata_of(folder: Path) -> Path | None:
    """The metadata file in a folder."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def names_labels(file: Path, image: str | None, label: str | None) -> bool:
    """Whether a metadata file has a column of files and one that is called like a label (or as asked for)."""
    columns = {name for row in _table(file)[:1] for name in row}
    likely = {name for name in columns if name.lower() in LABEL_NAMES}
    return (image or FILE_COLUMN) in columns and (label in columns if label else bool(likely))


def read_metadata(file: Path, image: str | None, label: str | None) -> list[Row]:
    """The rows of a metadata file, in order; whole numbers in a CSV file are numbers where all labels are such.

    Rows without a label have -1, as hidden labels have, where no row of the file (or of its split) has one.

    Args:
        image, label: columns; by default ``file_name``, and the one called like a label or the only other one.

    Raises:
        ValueError: a damaged file, columns that are not there, a file named twice or outside of the folder, rows
            without a label beside others with one.
    """
    rows = _table(file)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    image = _column(file, columns, "image_column", image, [FILE_COLUMN])
    others = [name for name in columns if name not in (image, SPLIT_COLUMN)]
    likely = [name for name in others if name.lower() in LABEL_NAMES]
    label = _column(file, columns, "label_column", label, likely or others)
    found: dict[str, Row] = {}
    for number, row in enumerate(rows, 1):
        where = f"{file}, row {number}"
        name = _inside(row.get(image), where)
        if name in found:
            raise ValueError(f"{where}: {name!r} has a row already")
        split = row.get(SPLIT_COLUMN)
        found[name] = Row(name, row.get(label), None if split in (None, "") else split_of(str(split)) or str(split))
    return _labelled(file, list(found.values()), label)


def _table(file: Path) -> list[Mapping[str, Any]]:
    """Names that are not UTF-8 come as the file system gives them, by surrogate escapes."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        if file.suffix == ".csv":
            try:
                rows: list[Any] = list(csv.DictReader(stream))
            except csv.Error as error:
                raise ValueError(f"{file}: damaged, or no CSV ({error})") from error
        else:
            rows = [parse_json(line, f"{file}, line {n}") for n, line in enumerate(stream, 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or None in row:
            raise ValueError(f"{file}, row {number}: has {'more cells than columns' if None in row else 'no table'}")
    if not rows:
        raise ValueError(f"{file}: has no rows")
    return rows


def _column(file: Path, columns: Sequence[str], field: str, wanted: str | None, likely: Sequence[str]) -> str:
    if wanted is None and len(likely) == 1 and likely[0] in columns:
        return likely[0]
    if wanted in columns and wanted is not None:
        return wanted
    reason = "has several that may be it" if wanted is None and len(likely) > 1 else "has none such"
    raise ValueError(f"DataConfig.{field} = {wanted!r}: {file} {reason}; its columns are {', '.join(columns)}")


def _inside(name: Any, where: str) -> str:
    path = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) and name else None
    if path is None or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: {name!r} is no file below its folder")
    return str(path)


def _labelled(file: Path, rows: list[Row], column: str) -> list[Row]:
    numbers = file.suffix == ".csv" and all(_WHOLE_NUMBER.fullmatch(row.label) for row in rows if row.label)
    known = {row.split for row in rows if row.label not in (None, "")}
    labelled = []
    for row in rows:
        label = row.label
        if label in (None, ""):
            if row.split in known:
                raise ValueError(f"DataConfig.label_column = {column!r}: {row.file!r} has no label in {file}")
            label = -1
        elif not isinstance(label, str | int):
            raise ValueError(
                f"DataConfig.label_column = {column!r}: label {label!r} in {file} is no text or whole number"
            )
        labelled.append(Row(row.file, int(label) if numbers and isinstance(label, str) else label, row.split))
    return labelled
