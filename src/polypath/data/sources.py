"""Load a dataset by name: open it, split it by its labels, decode it, and measure its channels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from polypath.core.arguments import takes
from polypath.core.checks import FLAG, FUNCTION, instance, optional
from polypath.core.display import printable
from polypath.data import cache
from polypath.data.config import DataConfig
from polypath.data.decode import Decoded, Encoded, Progress, decode_all
from polypath.data.digits import Digits
from polypath.data.facts import ImageFacts, facts_of
from polypath.data.folders import ImageFolder
from polypath.data.identity import Identity
from polypath.data.labels import encode_labels, hidden
from polypath.data.measure import normalisation
from polypath.data.names import read_name
from polypath.data.split import Split, StreamedSplit
from polypath.data.splits import hold_out_test, scored_part, training_parts
from polypath.data.tables import HubDataset, ParquetFolder, SavedDataset, parquet_files, saved_dataset

KNOWN: dict[str, dict[str, str]] = {
    "cifar10": {"source": "uoft-cs/cifar10"},
    "cifar100": {"source": "uoft-cs/cifar100", "label_column": "fine_label"},
    "svhn": {"source": "ufldl-stanford/svhn", "subset": "cropped_digits"},
    "imagenet": {"source": "ILSVRC/imagenet-1k", "test_split": "validation"},
}
"""Defaults for the papers' datasets by short name. Fields of the configuration override them."""

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
JPEG_NOTE = (
    "JPEG-coded CIFAR-10, which is not the published setting (by how much errors differ from those on the original "
    "pixels is not known)"
)
LOG = logging.getLogger(__name__)
MEMORY_SHARE = 0.8  # decoded images may take this share of the machine's memory


class LabelledTable(Encoded, Protocol):
    """A table of encoded images with raw labels, and with class names if the source has them."""

    @property
    def labels(self) -> list[Any]: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def identity(self) -> Identity: ...


class Source(Protocol):
    """A dataset with named splits, which are opened one at a time."""

    where: str
    told: list[str]  # phrases for the log: how the dataset was interpreted
    splits: dict[str, Any]

    def open(self, split: str, image: str | None, label: str | None) -> LabelledTable: ...


@dataclass(frozen=True)
class ImageData:
    """Training, validation and test images, with the facts about them that a network needs.

    Args:
        name: name of the source.
        train, validation, test: splits, in memory or streamed; ``validation`` is None if no images are held out.
        classes: names of the classes, in the order of the labels.
        mean, std: for each channel, the value to subtract from pixels in 0 … 1, and the value to divide by. They are
            given, or measured on the training images only as ``normalise`` says (0 and 1 for ``none``).
        note: remarks for readers of the results, such as how splits were made, or that pixels were JPEG-coded.
        skipped: names of the images that were left out because they cannot be read.
        crop: side in pixels of the square that is cropped from the stored images for the network; None uses the full
            images.
        identity: identity of the images of the opened splits, see :mod:`polypath.data.identity`; may be empty.
    """

    name: str
    train: Split | StreamedSplit
    validation: Split | StreamedSplit | None
    test: Split | StreamedSplit
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""
    skipped: tuple[str, ...] = ()
    crop: int | None = None
    identity: Identity = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
        return f"ImageData({self.name!r}, {counts}, {len(self.classes)} classes, {self.size[0]}×{self.size[1]} pixels)"

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the network's input, in pixels."""
        return (self.crop, self.crop) if self.crop else self.train.size

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the training images. A run can be resumed only on images with the same fingerprint."""
        return self.train.fingerprint()


def _mean_and_std(training: Split | StreamedSplit, config: DataConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if config.mean is None or config.std is None:
        return normalisation(training, config.normalise)
    if len(config.mean) != training.channels:
        raise ValueError(
            f"data.mean = {config.mean}: must have {training.channels} numbers, one per channel of the images"
        )
    return config.mean, config.std


@takes(config=instance(DataConfig), progress=optional(FUNCTION), accept=optional(FUNCTION), quiet=FLAG)
def load_images(
    config: DataConfig,
    progress: Progress | None = None,
    accept: Callable[[Identity], None] | None = None,
    *,
    quiet: bool = False,
) -> ImageData:
    """Open ``config.source``, decode its images and split them by labels and seed. Decoded images are cached
    (:mod:`polypath.data.cache`).

    Args:
        config: see :class:`DataConfig`.
        progress: called as ``progress(split, done, total)`` while images are decoded.
        accept: called with the identity of the images before they are decoded. The function should raise an error if
            these are not the expected images.
        quiet: do not log how the dataset was interpreted.

    Raises:
        ValueError: the source, subset, split or column is unknown, labels are inconsistent, images or files are broken,
            or the images do not fit into memory.
    """
    name, config = _named(config)
    loader = _Loader(open_source(config), config, progress)
    train, chooser, scorer = loader.tables()
    identity = _identity([*train, chooser, scorer])
    if accept is not None:
        accept(identity)
    loader.read_labels(train, [t for t in (chooser, scorer) if t])

    parts = [loader.split(table) for table in train]
    channels = max(part.channels for part in parts)
    test = loader.split(scorer, channels) if scorer else None
    if test is None:
        scored = hold_out_test(parts[0].labels, config)
        test, parts[0] = _take(parts[0], scored), _take(parts[0], ~scored)
        loader.notes.append(
            f"no test split: {len(test)} images of {train[0].split!r}, drawn class by class, are held out"
        )
    if not quiet:
        loader.tell()
    kept, held = training_parts([part.labels for part in parts], config)
    validation = loader.split(chooser, channels) if chooser else None
    if any(len(h) for h in held):
        validation = _joined([_take(part, h) for part, h in zip(parts, held, strict=True)])
    training = _joined([_take(part, k) for part, k in zip(parts, kept, strict=True)])
    test = _take(test, scored_part(test.labels, config))
    mean, std = _mean_and_std(training, config)
    return ImageData(
        name=name,
        train=training,
        validation=validation,
        test=test,
        classes=loader.classes,
        mean=mean,
        std=std,
        note="; ".join(loader.notes),
        skipped=tuple(loader.skipped),
        crop=config.size if config.resize_to else None,
        identity=identity,
    )


def identify(config: DataConfig) -> Identity:
    """Return the ``identity`` that :func:`load_images` would give, without decoding the images.

    Raises:
        ValueError: as for :func:`load_images`, except for broken images.
    """
    _, config = _named(config)
    train, chooser, scorer = _Loader(open_source(config), config, None).tables()
    return _identity([*train, chooser, scorer])


def look(config: DataConfig) -> ImageFacts:
    """Return facts about the images of ``config`` that can be found without decoding them.

    Raises:
        ValueError: as for :func:`load_images`, or no image can be read.
    """
    _, config = _named(config)
    source = open_source(config)
    loader = _Loader(source, config, None)
    train, chooser, scorer = loader.tables()
    loader.read_labels(train, [table for table in (chooser, scorer) if table])
    taken = {table.split for table in (*train, scorer) if table}
    free = "validation" in source.splits and "validation" not in taken
    choosing = "validation" if free and not hidden(loader.open("validation").labels) else None
    return facts_of(train, tested=scorer is not None, validation_split=choosing)


def _identity(tables: Iterable[LabelledTable | None]) -> Identity:
    return {name: part for table in tables if table for name, part in table.identity.items()}


# --- which dataset, which splits --------------------------------------------------------------------------


def _named(config: DataConfig) -> tuple[str, DataConfig]:
    """Return a short name of the source, and the configuration with the defaults of a known dataset filled in."""
    if known := KNOWN.get(config.source):
        fill = {f: value for f, value in known.items() if f == "source" or getattr(config, f) is None}
        return config.source, replace(config, **fill)
    path = local_folder(config.source)
    return (printable(path.resolve().name) if path else config.source), config


def local_folder(source: str) -> Path | None:
    """Return the absolute path of ``source`` (see ``DataConfig.source``) if it is a folder, else None.

    Raises:
        ValueError: the path begins with ``~``, but the home folder is unknown.
    """
    if source in KNOWN or source == "digits":
        return None
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:
        raise ValueError(f"DataConfig.source = {source!r}: the home folder is unknown; give the full path") from error
    return Path(os.path.abspath(path)) if path.is_dir() else None


def open_source(config: DataConfig) -> Source:
    """Open the dataset ``config.source``. A local folder takes precedence over a dataset on the Hub."""
    path = local_folder(config.source)
    if config.source == "digits":
        if config.subset is not None:
            raise ValueError(f"DataConfig.subset = {config.subset!r}: digits has no subsets")
        return Digits()
    if path is not None:
        if saved_dataset(path):
            return SavedDataset(path, config.subset)
        if next(parquet_files(path), None):
            return ParquetFolder(path, config.subset, mapped=config.streaming)
        names = (config.train_split, config.extra_split, config.test_split, config.validation_split)
        return ImageFolder(
            path,
            config.subset,
            [n for n in names if n],
            columns=(config.image_column, config.label_column),
            skip_broken=config.broken == "skip",
        )
    given = Path(config.source).expanduser()
    exists = given.exists()
    if exists or given.is_absolute() or config.source.startswith((".", "~")) or config.source.count("/") > 1:
        raise ValueError(
            f"DataConfig.source = {config.source!r}: {'is not a folder' if exists else 'does not exist'}; give a "
            "folder of parquet files or of images (one folder for each class, or a metadata.csv), a Hugging Face "
            f"dataset (OWNER/NAME), or one of digits, {', '.join(KNOWN)}"
        )
    return HubDataset(config.source, config.subset)


def _pick(source: Source, config: DataConfig, field: str) -> str:
    name = getattr(config, field)
    found = read_name(name)
    for legal in (name, found.split if found else None):
        if legal in source.splits:
            return legal
    raise ValueError(f"DataConfig.{field} = {name!r}: {source.where} has only the splits {', '.join(source.splits)}")


class _Loader:
    """A helper that opens splits of one source and collects notes about them."""

    def __init__(self, source: Source, config: DataConfig, progress: Progress | None) -> None:
        self.source, self.config, self.progress = source, config, progress
        self.notes: list[str] = []
        self.skipped: list[str] = []
        self.classes: tuple[str, ...] = ()
        self._labels: dict[str, Tensor] = {}

    def tables(self) -> tuple[list[LabelledTable], LabelledTable | None, LabelledTable | None]:
        """Open the training tables, and the validation and the test table if the dataset has them."""
        source, config = self.source, self.config
        train = [self.open(_pick(source, config, f)) for f in ("train_split", "extra_split") if getattr(config, f)]
        chooser = self.open(_pick(source, config, "validation_split")) if config.validation_split else None
        return train, chooser, self.test_table({t.split for t in [*train, chooser] if t})

    def tell(self) -> None:
        """Log how the dataset was interpreted. Parts of this may be guesses from names."""
        if self.source.told:
            classes = f"{len(self.classes):,} classes"
            LOG.info("%s: %s", self.source.where, "; ".join([*self.source.told, classes, *self.notes]))

    def open(self, split: str) -> LabelledTable:
        return self.source.open(split, self.config.image_column, self.config.label_column)

    def test_table(self, taken: set[str]) -> LabelledTable | None:
        """Open the split to test on. Return None if test images must be held out of the training images."""
        if self.config.test_split is not None:
            return self.open(_pick(self.source, self.config, "test_split"))
        for split in ("test", "validation"):
            if split in self.source.splits and split not in taken:
                table = self.open(split)
                if not hidden(table.labels):
                    if split != "test":
                        self.notes.append(f"scored on split {split!r}")
                    return table
        return None

    def read_labels(self, train: Sequence[LabelledTable], others: Sequence[LabelledTable]) -> None:
        self.classes, self._labels = encode_labels(train, others, self.source.where)

    def split(self, table: LabelledTable, channels: int | None = None) -> Split | StreamedSplit:
        """Return the images of a split. ``channels`` is the number of channels of the training images, or None if it is
        not yet known."""
        labels, config = self._labels[table.split], self.config
        if config.streaming:
            rows = torch.stack([torch.zeros(len(table), dtype=torch.int64), torch.arange(len(table))], dim=1)
            assert config.stored_size is not None  # checked by DataConfig
            return StreamedSplit(
                (table,),
                rows,
                labels,
                config.stored_size,
                config.resize,
                config.channels or 3,
                config.broken == "skip",
                table.fingerprint,
            )
        decoded = self._decoded(table, config.channels or channels)
        if decoded.skipped:
            self.notes.append(f"{len(decoded.skipped)} broken images of {table.split!r} skipped")
        self.skipped += decoded.skipped
        if decoded.format == "JPEG" and self.classes == CIFAR10 and JPEG_NOTE not in self.notes:
            self.notes.append(JPEG_NOTE)
        return Split(decoded.images, labels[decoded.rows])

    def _decoded(self, table: LabelledTable, channels: int | None) -> Decoded:
        config, key = self.config, None
        if config.cache and table.fingerprint:
            key = cache.key(
                images=table.fingerprint,
                split=table.split,
                size=config.stored_size,
                resize=config.resize,
                channels=channels,
                broken=config.broken,
            )
            if (found := cache.load(key)) is not None:
                return found
        _check_memory(len(table), channels or 3, config.stored_size)
        decoded = decode_all(
            table,
            size=config.stored_size,
            resize=config.resize,
            channels=channels,
            skip_broken=config.broken == "skip",
            progress=self.progress,
        )
        if key is not None:
            cache.store(key, decoded)
        return decoded


def _take(split: Any, which: Tensor) -> Any:
    if which.dtype == torch.bool:
        which = which.nonzero().squeeze(1)
    return split if len(which) == len(split) else split.subset(which)


def _joined(parts: Sequence[Any]) -> Any:
    return type(parts[0]).joined(parts)


def _check_memory(images: int, channels: int, side: int | None) -> None:
    if side is None or not hasattr(os, "sysconf"):
        return
    needed, there = images * channels * side**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * there:
        raise ValueError(
            f"DataConfig.streaming = False: {images:,} images of {side}x{side} pixels need {needed / 2**30:.0f} GiB, "
            f"too much for {there / 2**30:.0f} GiB of memory; stream them (--data.streaming), or set a smaller size"
        )
