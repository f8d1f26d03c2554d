"""Read the labels of images in one folder from ``metadata.csv`` or ``metadata.jsonl``, as in Hugging Face's
imagefolder.

Each image has a row, with ``file_name`` (relative to the metadata file) and a label. A metadata file of several splits
also has a column ``split``.
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
    """One row: the path of an image relative to the metadata file, the label, and the split if the row has one."""

    file: str
    label: Any
    split: str | None


def metadata_of(folder: Path) -> Path | None:
    """Return the metadata file in a folder, if there is one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def names_labels(file: Path, image: str | None, label: str | None) -> bool:
    """Return whether a metadata file has the columns of files and labels (as requested, or with usual names)."""
    columns = {name for row in _table(file)[:1] for name in row}
    likely = {name for name in columns if name.lower() in LABEL_NAMES}
    return (image or FILE_COLUMN) in columns and (label in columns if label else bool(likely))


def read_metadata(file: Path, image: str | None, label: str | None) -> list[Row]:
    """Read the rows of a metadata file, in order. Labels of a CSV file become integers if all of them are integers.

    If no row of a split (or of the file) has a label, all its rows get the label -1, as for hidden labels.

    Args:
        image: name of the image column; the default is ``file_name``.
        label: name of the label column. The default is the only column with a usual name for labels or, if there is
            none, the only other column.

    Raises:
        ValueError: the file is damaged, columns are missing, an image is listed twice or is outside the folder, or a
            split has rows with and without a label.
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
            raise ValueError(f"{where}: an earlier row already has the file {name!r}")
        split = row.get(SPLIT_COLUMN)
        found[name] = Row(name, row.get(label), None if split in (None, "") else split_of(str(split)) or str(split))
    return _labelled(file, list(found.values()), label)


def _table(file: Path) -> list[Mapping[str, Any]]:
    """Read the rows of the file. Bytes that are not UTF-8 become surrogate escapes, as in Python's file names."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        if file.suffix == ".csv":
            try:
                rows: list[Any] = list(csv.DictReader(stream))
            except csv.Error as error:
                raise ValueError(f"{file}: is damaged or not a CSV file ({error})") from error
        else:
            rows = [parse_json(line, f"{file}, line {n}") for n, line in enumerate(stream, 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{file}, row {number}: is not a JSON object")
        if None in row:
            raise ValueError(f"{file}, row {number}: has more cells than columns")
    if not rows:
        raise ValueError(f"{file}: has no rows")
    return rows


def _column(file: Path, columns: Sequence[str], field: str, wanted: str | None, likely: Sequence[str]) -> str:
    if wanted is None and len(likely) == 1 and likely[0] in columns:
        return likely[0]
    if wanted in columns and wanted is not None:
        return wanted
    reason = "has several possible columns" if wanted is None and len(likely) > 1 else "has no matching column"
    raise ValueError(f"DataConfig.{field} = {wanted!r}: {file} {reason}; its columns are {', '.join(columns)}")


def _inside(name: Any, where: str) -> str:
    path = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) and name else None
    if path is None or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: {name!r} must be a path below the folder of the metadata file")
    return str(path)


def _labelled(file: Path, rows: list[Row], column: str) -> list[Row]:
    numbers = file.suffix == ".csv" and all(_WHOLE_NUMBER.fullmatch(row.label) for row in rows if row.label)
    known = {row.split for row in rows if row.label not in (None, "")}
    labelled = []
    for row in rows:
        label = row.label
        if label in (None, ""):
            if row.split in known:
                raise ValueError(f"DataConfig.label_column = {column!r}: image {row.file!r} has no label in {file}")
            label = -1
        elif not isinstance(label, str | int):
            raise ValueError(
                f"DataConfig.label_column = {column!r}: label {label!r} in {file} is neither text nor an integer"
            )
        labelled.append(Row(row.file, int(label) if numbers and isinstance(label, str) else label, row.split))
    return labelled
