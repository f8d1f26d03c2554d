"""Writes answers to many images into one CSV or Parquet file, batch by batch. A new call resumes a stopped one.

    predictor = AnytimePredictor(bundle)
    write_answers(predictor, list(files_of(["photos"])), "answers.csv")

Rows are collected in the folder ``answers.csv.part``. ``answers.csv`` appears when it is complete; ``answers.csv.json``
records the bundle and the options. An answer's last digits may depend on the other images of its batch. So a call that
resumes keeps only complete batches. The file then equals the file that a single call writes.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from polypath.core.checks import check, one_of, whole
from polypath.core.display import as_unicode, printable
from polypath.data.images import BrokenImage
from polypath.deploy.answer import Answer, check_top_k
from polypath.deploy.budget import BudgetError
from polypath.deploy.predictor import AnytimePredictor
from polypath.storage import files as storage
from polypath.storage.decode import read
from polypath.storage.digests import json_digest
from polypath.storage.lock import FolderLock

COLUMNS = ("file", "class", "probability", "path", "error")
BATCH = 32
ROW_GROUP = 10_000  # number of rows of a Parquet file in memory at a time
_KINDS = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request to write a file of answers. A later call resumes the file only if both requests are the same.

    Attributes:
        bundle, digest: the bundle's name and digest.
        images, names: the number of images, and the SHA-256 of their names in order.
        runtime, precision: the predictor's runtime and precision.
        path, budget_ms, top_k, batch: the arguments of :func:`write_answers`.
    """

    bundle: str
    digest: str
    images: int
    names: str
    runtime: str
    path: str | None
    budget_ms: float | None
    top_k: int
    batch: int
    precision: str = "f32"


@dataclass(frozen=True, kw_only=True)
class Written(Asked):
    """The contents of the ``.json`` beside a complete file. ``failed`` is the number of images that have no answer."""

    failed: int


def write_answers(
    predictor: AnytimePredictor,
    files: Sequence[Path],
    out: str | os.PathLike[str],
    *,
    path: str | None = None,
    budget_ms: float | None = None,
    top_k: int = 1,
    batch: int = BATCH,
    watched: Callable[[range], Iterable[int]] = iter,
) -> Written:
    """Classify image files, and write one row for each file, in order, to ``out`` (``.csv`` or ``.parquet``).

    The columns are ``file``, ``class``, ``probability``, ``path``, and ``error`` for an image without an answer. With
    ``top_k`` above 1, ``class_2``, ``probability_2`` and so on follow. If an earlier call with the same arguments was
    stopped, this call resumes it. If the file is complete, nothing is done. One batch of images is in memory at a time.

    Args:
        path: the name of a path; None means the most accurate path.
        budget_ms: time budget for each image; images are then classified one by one. Give either this or ``path``.
        top_k: number of likeliest classes in each row.
        batch: number of images that are classified together.
        watched: function that wraps the iteration over the index of each batch's first image, to show progress.

    Raises:
        ValueError: there are no images, an argument is invalid, or the file at ``out`` belongs to other images, other
            options or another bundle, or is being written by another process.
        BudgetError: the cheapest path needs more time than the budget.
    """
    out, size = check_out(out), check("batch", batch, whole(1))
    check_top_k(top_k, predictor.bundle.classes)
    if not files:
        raise ValueError("files = []: must contain at least one image file")
    if budget_ms is not None:
        if path is not None:
            raise ValueError(f"path {path!r} and budget_ms {budget_ms!r} are both given: give only one of them")
        predictor.choose(budget_ms)
    names = [as_unicode(os.fspath(file)) for file in files]
    asked = Asked(
        bundle=predictor.bundle.name,
        digest=predictor.bundle.digest,
        images=len(files),
        names=json_digest(names),
        runtime=predictor.runtime.name,
        path=None if path is None else predictor.bundle.path(path).name,
        budget_ms=budget_ms,
        top_k=top_k,
        batch=size,
        precision=predictor.precision,
    )
    if os.path.lexists(out):
        return _already(out, asked)
    work = _work(out)
    work.mkdir(exist_ok=True)
    with FolderLock(work):
        _check_same(out, asked, work / "asked.json")
        storage.write_json(work / "asked.json", asdict(asked))
        with _Rows(work / "rows.csv", names, asked) as rows:
            for start in watched(range(rows.kept, len(files), size)):
                rows.add(_answered(predictor, files[start : start + size], asked))
        written = Written(**asdict(asked), failed=rows.failed)
        storage.write_json(_record(out), asdict(written))
        if out.suffix == ".csv":
            os.replace(work / "rows.csv", out)
            storage.sync_folder(out.parent)
        else:
            with storage.whole(out) as temporary:
                _to_parquet(work / "rows.csv", temporary)
        shutil.rmtree(work)
    return written


def check_out(out: str | os.PathLike[str]) -> Path:
    """Check the path of a file of answers, and return it.

    Raises:
        ValueError: the suffix is neither ``.csv`` nor ``.parquet``, or the parent folder does not exist.
        ImportError: the file is Parquet, but pyarrow is not installed.
    """
    out = Path(out)
    check(f"suffix of {printable(out)}", out.suffix, one_of(*_KINDS))
    if not out.parent.is_dir():
        raise ValueError(f"{printable(out)}: the folder {printable(out.parent)} does not exist")
    if out.suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401  (imported here, so that an error comes before the work)
    return out


def runtime_of(out: Path) -> str | None:
    """Return the runtime of the answers at ``out``, complete or not, or None if there are no answers."""
    for file in (_record(out), _work(out) / "asked.json"):
        if file.is_file():
            return read(file, Asked, others=True).runtime
    return None


def _record(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _work(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def _already(out: Path, asked: Asked) -> Written:
    if not _record(out).is_file():
        raise ValueError(f"{printable(out)}: this file exists, but {_record(out).name} does not; choose another file")
    _check_same(out, asked, _record(out))
    shutil.rmtree(_work(out), ignore_errors=True)  # from a call that was killed just before its end
    return read(_record(out), Written)


def _check_same(out: Path, asked: Asked, record: Path) -> None:
    if not record.is_file():
        return
    earlier = asdict(read(record, Asked, others=True))
    for name, now in asdict(asked).items():
        if earlier[name] != now:
            raise ValueError(
                f"{printable(out)}: the answers in this file are for {name} = {earlier[name]!r}, not {now!r}; "
                "give the same value, or choose another file"
            )


class _Rows:
    """A CSV file of the rows so far. When it is opened, an incomplete batch at the end is cut off."""

    def __init__(self, file: Path, names: Sequence[str], asked: Asked) -> None:
        further = [f"{name}_{i}" for i in range(2, asked.top_k + 1) for name in ("class", "probability")]
        self._file, self._head = file, [*COLUMNS, *further]
        self.kept, self.failed, self._length = self._whole_batches(names, asked.batch)

    def __enter__(self) -> _Rows:
        self._stream = open(self._file, "r+b" if self._length else "wb")
        self._stream.truncate(self._length)
        self._stream.seek(self._length)
        if not self._length:
            self.add([self._head])
        return self

    def __exit__(self, *_: Any) -> None:
        with self._stream:
            os.fsync(self._stream.fileno())

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._stream.write(text.getvalue().encode())
        self._stream.flush()
        self.failed += sum(bool(row[4]) for row in rows if row is not self._head)

    def _whole_batches(self, names: Sequence[str], batch: int) -> tuple[int, int, int]:
        """Return the number of rows in complete batches, the number of failed images among them, and the size of these
        batches in bytes. File names are compared, since the file may end in garbage after a power cut."""
        kept, failed = (0, 0, 0), 0
        if not self._file.is_file():
            return kept
        with open(self._file, "rb") as stream:
            lines = _Lines(stream)
            try:
                for i, row in enumerate(csv.reader(lines, strict=True)):
                    expected = row == self._head if i == 0 else len(row) == len(self._head) and row[0] == names[i - 1]
                    if not expected or not lines.ended:
                        break
                    failed += bool(i and row[4])
                    if i % batch == 0 or i == len(names):
                        kept = i, failed, lines.read
                    if i == len(names):
                        break
            except (csv.Error, UnicodeDecodeError):
                pass
        return kept


class _Lines:
    """A file's lines as text. ``read`` counts bytes, and ``ended`` says whether the last line ended with a newline."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.read, self.ended = stream, 0, True

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self.read, self.ended = self.read + len(line), line.endswith(b"\n")
            yield line.decode()


def _answered(predictor: AnytimePredictor, files: Sequence[Path], asked: Asked) -> list[list[str]]:
    """Classify a batch, and return its rows."""
    rows: dict[Path, list[str]] = {}
    good: list[Path] = []
    pixels: list[np.ndarray] = []

    def take(answer: Answer, of: Sequence[Path]) -> None:
        rows.update({file: _row(file, answer.path, top) for file, top in zip(of, answer.top(), strict=True)})

    for file in files:
        try:
            if asked.budget_ms is not None:
                take(predictor.predict(file, asked.budget_ms, top_k=asked.top_k), [file])
            else:
                pixels.append(predictor.bundle.preparation.array(file, predictor.limits)[0])
                good.append(file)
        except (BrokenImage, BudgetError) as error:
            why = printable(str(error).removeprefix(f"{printable(file)}: "))
            rows[file] = [as_unicode(os.fspath(file)), "", "", "", why, *[""] * (2 * asked.top_k - 2)]
    if good:
        take(predictor.predict(np.stack(pixels), path=asked.path, top_k=asked.top_k), good)
    return [rows[file] for file in files]


def _row(file: Path, path: str, top: Sequence[tuple[str, float]]) -> list[str]:
    name, probability, *further = [text for name, p in top for text in (name, f"{p:.6f}")]
    return [as_unicode(os.fspath(file)), name, probability, path, "", *further]


def _to_parquet(rows: Path, out: Path) -> None:
    """Convert a CSV file to Parquet: probabilities to float32, empty cells to null, all other cells to text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(rows, encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        head = next(reader)
        numbers = [name.startswith("probability") for name in head]
        schema = pa.schema([(name, pa.float32() if n else pa.string()) for name, n in zip(head, numbers, strict=True)])
        with pq.ParquetWriter(out, schema) as writer:
            while group := list(islice(reader, ROW_GROUP)):
                columns = [
                    [(float(text) if n else text) if text else None for text in column]
                    for n, column in zip(numbers, zip(*group, strict=True), strict=True)
                ]
                writer.write_table(pa.table(columns, schema=schema))
