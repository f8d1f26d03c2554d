"""Facts about images that need no decoding: the number of images per class, and their sizes."""

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

LOOKED = 256  # images whose headers are read, evenly spaced


class _Table(Encoded, Labelled, Protocol):
    """Encoded images with their labels."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts about the training images.

    Attributes:
        classes: number of images by class name.
        side: the median of the shorter sides, in pixels.
        alike: all sampled images are squares of one size.
        grey: all sampled images are grey.
        tested: the dataset has its own test images; otherwise a share of the training images is held out.
        validation_split: the dataset's own validation split, if any.
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
        """Size of the largest class divided by that of the smallest."""
        return max(self.classes.values()) / min(self.classes.values())


def facts_of(tables: Sequence[_Table], *, tested: bool = False, validation_split: str | None = None) -> ImageFacts:
    """Facts about the training splits; the headers of at most ``LOOKED`` images are read.

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
            yield table.read([row])[0]  # one at a time: a photo may have many megabytes


def _head(raw: Raw) -> tuple[tuple[int, int], bool] | None:
    """Width and height, and whether the image is grey; None if it cannot be read."""
    if isinstance(raw, Image.Image):
        return raw.size, is_grey(raw.mode)
    try:
        found = probe(raw if isinstance(raw, bytes) else b"", OWN)
    except BrokenImage:
        return None
    return (found.width, found.height), is_grey(found.mode)
