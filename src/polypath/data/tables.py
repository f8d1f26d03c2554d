"""Tables of encoded images: one interface for local parquet files and datasets of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from polypath.core.display import printable
from polypath.data.decode import Raw
from polypath.data.identity import Identity, Part, fingerprint, part_of, read_files, sampled_part
from polypath.data.labels import LABEL_NAMES
from polypath.data.names import WORDS, hidden_or_system, split_of

if TYPE_CHECKING:
    from datasets import Dataset

CIFAR100 = {"fine_label", "coarse_label"}  # the two label columns of CIFAR-100; the papers use the fine one
SHARD = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?$")
LOG = logging.getLogger(__name__)
HUB_TIMEOUT = 5.0  # seconds to wait for the Hub before using earlier downloads


@dataclass(frozen=True)
class Table:
    """One split of a dataset. ``labels`` are the raw values of the label column, and ``classes`` are the names of the
    classes if the dataset has names. ``files`` is the identity of the files of a local dataset.
    """

    split: str
    rows: Dataset
    image_column: str
    labels: list[Any]
    classes: tuple[str, ...] | None
    fingerprint: str
    files: Part | None = None

    @property
    def identity(self) -> Identity:
        """The identity of the files that the table was read from or, if there are none, of its rows."""
        return {self.split: self.files or sampled_part(self.labels, self.read)}

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[Raw]:
        return [_bytes(value) for value in self.rows[list(rows)][self.image_column]]

    def name(self, row: int) -> str:
        path = _path(self.rows[row][self.image_column])
        return f"row {row}" + (f" ({path})" if path else "")


def _path(value: Any) -> str | None:
    return value.get("path") if isinstance(value, Mapping) else None


def _bytes(value: Any) -> Raw:
    data = value.get("bytes") if isinstance(value, Mapping) else value  # a path is untrusted, so it is not opened
    return data if isinstance(data, bytes) else ValueError("the row has no image bytes")


# --- columns ----------------------------------------------------------------------------------------------


def find_columns(rows: Dataset, where: str, image: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the image and the label column, as requested or found by their types.

    An image column has the type ``Image`` or, if no column has this type, is binary. A label column has the type
    ``ClassLabel``. If no column has this type, a label column contains integers, booleans or text; among several such
    columns, the one with a usual name for labels is used. For CIFAR-100, the fine labels are used.

    Raises:
        ValueError: a column is unknown, or there is not exactly one column that fits.
    """
    kinds = {name: _kind(feature) for name, feature in rows.features.items()}
    found = []
    for field, wanted, ranks in (
        ("image_column", image, ("image", "binary")),
        ("label_column", label, ("classes", "values")),
    ):
        if wanted is not None and kinds.get(wanted) not in ranks:
            what = "is not a column" if wanted not in kinds else f"is not {_article(field)} column"
            raise ValueError(f"DataConfig.{field} = {wanted!r}: {what} of {where}; its columns are {_listed(rows)}")
        found.append(wanted or _only(kinds, ranks, field, where, rows))
    return found[0], found[1]


def _kind(feature: Any) -> str:
    from datasets import ClassLabel, Image, Value

    if isinstance(feature, Image):
        return "image"
    if isinstance(feature, ClassLabel):
        return "classes"
    if isinstance(feature, dict) and "bytes" in feature:  # an Image column written without its type
        return "binary"
    if isinstance(feature, Value):
        if "binary" in feature.dtype:
            return "binary"
        if feature.dtype.startswith(("int", "uint", "bool", "string", "large_string")):
            return "values"
    return "other"


def _only(kinds: Mapping[str, str], ranks: Sequence[str], field: str, where: str, rows: Dataset) -> str:
    for rank in ranks:
        names = [name for name, kind in kinds.items() if kind == rank]
        if rank == "values" and len(names) > 1:
            names = [name for name in names if name.lower() in LABEL_NAMES] or names
        if set(names) == CIFAR100:
            return "fine_label"
        if len(names) == 1:
            return names[0]
        if names:
            raise ValueError(
                f"DataConfig.{field} = None: {where} has several columns that can be the {field}; choose one of "
                f"{', '.join(names)}"
            )
    raise ValueError(
        f"DataConfig.{field} = None: {where} has no column that can be the {field}; its columns are {_listed(rows)}"
    )


def _article(field: str) -> str:
    return "an image" if field == "image_column" else "a label"


def _listed(rows: Dataset) -> str:
    return ", ".join(f"{name} ({getattr(f, 'dtype', None) or 'struct'})" for name, f in rows.features.items())


def as_table(rows: Dataset, split: str, where: str, fingerprint: str, image: str | None, label: str | None) -> Table:
    """Find the columns of a split, read its labels, and return it as a table."""
    from datasets import ClassLabel, Image

    image, label = find_columns(rows, where, image, label)
    feature = rows.features[label]
    classes = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    column = rows.data.column(label)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"DataConfig.label_column = {label!r}: row {row} of split {split!r} of {where} has no label")
    labels = column.to_pylist()
    rows = rows.select_columns([image])
    if isinstance(rows.features[image], Image):
        rows = rows.cast_column(image, Image(decode=False))
    return Table(split, rows, image, labels, classes, f"{fingerprint}/{image}")


def _of_files(rows: Dataset, split: str, source: LocalTables, image: str | None, label: str | None) -> Table:
    files = source.splits[split]
    facts, whole = read_files(files, source.root)
    table = as_table(rows, split, source.where, fingerprint(facts, whole), image, label)
    source.told.append(f"{split} is {_shortly(files, source.root)} ({len(table):,} images)")
    return replace(table, files=part_of(facts, len(table)))


def _shortly(files: Sequence[Path], root: Path) -> str:
    names = [printable(str(file.relative_to(root))) for file in files]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}, {len(names)} files"


# --- local files ------------------------------------------------------------------------------------------


class LocalTables(Protocol):
    """A local dataset: its name, its folder, the files of each split, and phrases on how these were interpreted."""

    where: str
    root: Path
    splits: dict[str, list[Path]]
    told: list[str]


def parquet_files(root: Path) -> Iterator[Path]:
    """Find the parquet files below a folder, except those in hidden and system folders."""
    for at, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not hidden_or_system(name)]
        yield from (Path(at, name) for name in names if name.endswith(".parquet") and not hidden_or_system(name))


class ParquetFolder:
    """A dataset of parquet files below a folder. The names of files and folders give the splits, as on the Hub."""

    def __init__(self, root: Path, subset: str | None, *, mapped: bool) -> None:
        self.where, self.mapped = f"folder {printable(str(root))}", mapped
        self.root = root
        self.told: list[str] = []
        self.splits: dict[str, list[Path]] = {}
        for file in self._of_subset(sorted(parquet_files(root)), subset):
            self.splits.setdefault(self._split(file), []).append(file)

    def _of_subset(self, files: list[Path], subset: str | None) -> list[Path]:
        subsets = {}
        for file in files:
            folders = [p for p in file.relative_to(self.root).parts[:-1] if split_of(p) is None and p != "data"]
            subsets.setdefault("/".join(folders), []).append(file)
        legal = ", ".join(sorted(filter(None, subsets)))
        if subset is None and len(subsets) == 1:
            return files
        if subset is None:
            raise ValueError(f"DataConfig.subset = None: {self.where} has several subsets; choose one of {legal}")
        if subset not in subsets:
            raise ValueError(
                f"DataConfig.subset = {subset!r}: does not exist; {self.where} has {legal or 'no subsets'}"
            )
        return subsets[subset]

    def _split(self, file: Path) -> str:
        if shard := SHARD.match(file.stem):
            return split_of(shard[1]) or shard[1]
        folders = file.relative_to(self.root).parts[:-1]
        words = re.split(r"[-_. ]", file.stem.lower())
        return next(filter(None, (*map(WORDS.get, words), *map(split_of, reversed(folders)))), "train")

    def open(self, split: str, image: str | None, label: str | None) -> Table:
        """Read a split. If ``mapped`` was given, the split is memory-mapped from the Hugging Face cache.

        Raises:
            ValueError: a file is damaged or not a parquet file, or columns are not found (see :func:`find_columns`).
        """
        files = self.splits[split]
        rows = self._mapped(files) if self.mapped else self._read(files)
        return _of_files(rows, split, self, image, label)

    def _read(self, files: list[Path]) -> Dataset:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Dataset

        tables = []
        for file in files:
            try:
                tables.append(pq.ParquetFile(file).read())
            except (OSError, pa.ArrowException, ValueError) as error:
                raise ValueError(f"{file}: is damaged or not a parquet file ({_line(error)})") from None
            if tables[-1].schema.names != tables[0].schema.names:
                raise ValueError(
                    f"{file}: has columns {tables[-1].schema.names}, but {files[0].name} has {tables[0].schema.names}"
                )
        try:
            return Dataset(pa.concat_tables(tables, promote_options="permissive").combine_chunks())
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise ValueError(f"the files of {self.where} have different columns or types ({_line(error)})") from None

    def _mapped(self, files: list[Path]) -> Dataset:
        from datasets import load_dataset

        try:
            with quiet():
                loaded: Any = load_dataset("parquet", data_files=[str(f) for f in files], split="train")
            return loaded
        except Exception as error:
            cause = error.__cause__ or error
            if not isinstance(cause, OSError) or cause.errno is None:
                raise ValueError(f"{self.where} cannot be read ({_line(cause)})") from None
            LOG.warning(
                "%s is read into memory, since it cannot be memory-mapped in the cache of the datasets library (%s); "
                "set HF_HOME to another folder for that cache",
                self.where,
                _line(cause),
            )
            return self._read(files)


class SavedDataset:
    """A dataset that was written by the datasets library's ``save_to_disk``: one split, or a folder for each split."""

    def __init__(self, root: Path, subset: str | None) -> None:
        from datasets import Dataset, load_from_disk

        if subset is not None:
            raise ValueError(
                f"DataConfig.subset = {subset!r}: folder {root} was written by save_to_disk and has no subsets"
            )
        self.where, self.root = f"folder {printable(str(root))}", root
        self.told: list[str] = []
        try:
            with quiet():
                found = load_from_disk(root)
        except Exception as error:
            raise ValueError(f"{self.where} cannot be read ({_line(error)})") from None
        named = {"train": found} if isinstance(found, Dataset) else dict(found)
        self._rows: dict[str, Any] = {split_of(str(name)) or str(name): rows for name, rows in named.items()}
        self.splits = {name: [Path(file["filename"]) for file in rows.cache_files] for name, rows in self._rows.items()}

    def open(self, split: str, image: str | None, label: str | None) -> Table:
        return _of_files(self._rows[split], split, self, image, label)


def saved_dataset(root: Path) -> bool:
    """Return whether this folder was written by ``save_to_disk``."""
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


# --- the hub ----------------------------------------------------------------------------------------------


class HubDataset:
    """A dataset of the Hugging Face Hub, which the datasets library downloads into its cache."""

    def __init__(self, source: str, subset: str | None) -> None:
        self.where = f"dataset {source}" + (f" ({subset})" if subset else "")
        self.data = _load(source, subset)
        self.splits = dict(self.data)
        self.told: list[str] = []

    def open(self, split: str, image: str | None, label: str | None) -> Table:
        rows = self.splits[split]
        return as_table(rows, split, self.where, rows._fingerprint, image, label)


def _load(source: str, subset: str | None) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    unreachable = _probe(source)
    try:
        with quiet(), offline() if unreachable else contextlib.nullcontext():
            return load_dataset(source, subset)
    except (ConnectionError, FileNotFoundError, DatasetNotFoundError) as error:
        reason = unreachable or _line(error)
        raise ValueError(
            f"DataConfig.source = {source!r}: is not a local folder and was not downloaded before, and the Hugging "
            f"Face Hub cannot be reached ({reason}); check the name (OWNER/NAME) and the connection, or give a local "
            "folder"
        ) from None
    except Exception as error:
        if isinstance(error, ValueError) and "config" in str(error).lower():  # the message lists the legal subsets
            raise ValueError(f"DataConfig.subset = {subset!r}: {' '.join(str(error).split())}") from None
        raise ValueError(
            f"DataConfig.source = {source!r}: cannot be loaded ({_line(error.__cause__ or error)})"
        ) from None


def _probe(source: str) -> str | None:
    """Check that the Hub has this dataset. Return None, or the reason why the Hub cannot be reached. (Without this
    check, the datasets library would retry for a long time.)

    Raises:
        ValueError: the Hub does not have the dataset, or the dataset is gated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(source, timeout=HUB_TIMEOUT)
        return None
    except GatedRepoError:
        raise ValueError(
            f"DataConfig.source = {source!r}: this dataset is gated; accept its terms at "
            f"huggingface.co/datasets/{source} and log in with `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"DataConfig.source = {source!r}: is neither a local folder nor a dataset on the Hub ({_line(error)})"
        ) from None
    except Exception as error:  # the HTTP library has many exceptions for a missing network
        return _line(error) or type(error).__name__


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Make the libraries use earlier downloads, without contacting the Hub, inside the ``with`` block."""
    import datasets.config
    import huggingface_hub.constants

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings and hints of the datasets library on stderr, inside the ``with`` block. Errors are still
    raised."""
    from datasets.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _line(error: BaseException) -> str:
    """Return the first line of an error message, without the full stop."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
