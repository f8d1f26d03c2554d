"""What can be known of images before any is decoded: how many of which class, and how large they are."""

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

LOOKED = 256  # images whose heads are read, at even distances


class _Table(Encoded, Labelled, Protocol):
    """Encoded images with their labels."""


@dataclass(frozen=True)
class ImageFacts:
    """Images that may be trained on.

    Attributes:
        classes: how many images each class has, by its name.
        side: the median of the shorter sides, in pixels.
        alike: all that were looked at are squares of one size.
        grey: none of them has colours.
        tested: the dataset has images of its own to score on; else a share of these is held out for that.
        validation_split: the split that the dataset has for choosing, if any.
    """

    classes: Mapping[str, int]
    side: int
    alike: bool = False
    grey: bool = False
    tested: bool = False
    validation_split: str | None = None

    @property
    def images(self) -> int:
        return sum(self.classes.values())

    @property
    def balance(self) -> float:
        """Images of the largest class for one of the smallest."""
        return max(self.classes.values()) / min(self.classes.values())


def facts_of(tables: Sequence[_Table], *, tested: bool = False, validation_split: str | None = None) -> ImageFacts:
    """Facts of the splits that train; the heads of at most ``LOOKED`` images are read.

    Raises:
        ValueError: no head that can be read.
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
            yield table.read([row])[0]  # one at a time: a photo may have many megabytes


def _head(raw: Raw) -> tuple[tuple[int, int], bool] | None:
    """Width and height, and whether the image is grey; None where it cannot be read."""
    if isinstance(raw, Image.Image):
        return raw.size, is_grey(raw.mode)
    try:
        found = probe(raw if isinstance(raw, bytes) else b"", OWN)
    except BrokenImage:
        return None
    return (found.width, found.height), is_grey(found.mode)
