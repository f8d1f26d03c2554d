"""Facts about images that can be found without decoding them: the number of images per class, and their sizes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from polypath.data.decode import Encoded, Raw
from polypath.data.images import OWN, BrokenImage, probe
from polypath.data.labels import Labelled
from polypath.data.modes import is_grey

LOOKED = 256  # at most this many headers are read, of evenly spaced images


class _Table(Encoded, Labelled, Protocol):
    """A table of encoded images with their labels."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts about the training images.

    Attributes:
        classes: maps the name of each class to its number of images.
        side: the median of the shorter sides, in pixels.
        alike: whether all sampled images are squares of the same size.
        grey: whether all sampled images are grey.
        tested: whether the dataset has test images; otherwise a share of the training images is held out for the test.
        validation_split: name of the dataset's validation split, if it has one.
        feature_error: error of a linear classifier on the features of the network in ``init``, in percent
            (:func:`polypath.training.fit_head.feature_error`). It is None if it was not measured; this
            needs decoded images.
    """

    classes: Mapping[str, int]
    side: int
    alike: bool = False
    grey: bool = False
    tested: bool = False
    validation_split: str | None = None
    feature_error: float | None = None

    @property
    def images(self) -> int:
        return sum(self.classes.values())

    @property
    def balance(self) -> float:
        """The size of the largest class divided by the size of the smallest class."""
        return max(self.classes.values()) / min(self.classes.values())


def facts_of(tables: Sequence[_Table], *, tested: bool = False, validation_split: str | None = None) -> ImageFacts:
    """Return the facts about the training splits. The headers of at most ``LOOKED`` images are read.

    Raises:
        ValueError: no header can be read.
    """
    counts: Counter[str] = Counter()
    for table in tables:
        names = table.classes
        counts.update(str(label) if names is None else names[label] for label in table.labels)
    sizes, grey = [], []
    for raw in _some(tables):
        found = _head(raw)
        if found is not None:
            sizes.append(found[0])
            grey.append(found[1])
    if not sizes:
        raise ValueError(f"split {tables[0].split!r} has no image that can be read")
    side = round(statistics.median(min(size) for size in sizes))
    alike = len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1]
    return ImageFacts(counts, side, alike, all(grey), tested, validation_split)


def _some(tables: Sequence[_Table]) -> Iterator[Raw]:
    step = -(-sum(map(len, tables)) // LOOKED) or 1
    for table in tables:
        for row in range(0, len(table), step):
            yield table.read([row])[0]  # one at a time, since a photo may have many megabytes


def _head(raw: Raw) -> tuple[tuple[int, int], bool] | None:
    """Return width and height, and whether the image is grey. Return None if the image cannot be read."""
    if isinstance(raw, Image.Image):
        return raw.size, is_grey(raw.mode)
    try:
        found = probe(raw if isinstance(raw, bytes) else b"", OWN)
    except BrokenImage:
        return None
    return (found.width, found.height), is_grey(found.mode)
