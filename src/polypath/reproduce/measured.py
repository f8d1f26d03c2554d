"""The measurements of one seed, in memory and on disk.

The file is an ``.npz`` without pickle. It stores as bits which images are classified correctly, and the rest as JSON.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polypath.storage.files import write_file


class Correct(NamedTuple):
    """The test images that are classified correctly, as ``hits`` ``(images,)`` bool. ``images`` identifies the test
    set. Only results on the same test set are compared image by image."""

    hits: np.ndarray
    images: str


@dataclass
class Measured:
    """The measurements of one seed, by key.

    Attributes:
        correct: which test images are classified correctly.
        values: scalars (a training loss, epochs until an event, MACs, a similarity).
        curves: the points ``(x, y)`` of a line.
        histograms: counts or shares by label.
        pictures: images to show, as PNG in base64. A result keeps those of the first seed.
    """

    correct: dict[str, Correct] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    histograms: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)

    def update(self, other: Measured) -> Measured:
        """Add the entries of ``other``, and return this object."""
        self.correct |= other.correct
        self.values |= other.values
        self.curves |= other.curves
        self.histograms |= other.histograms
        self.pictures |= other.pictures
        return self


def save_measured(file: Path, measured: Measured, arms: Sequence[str]) -> None:
    """Write the measurements of one seed to a file. ``arms`` are the names of the measured arms."""
    rest = {
        "arms": list(arms),
        "keys": [[key, hits.images, len(hits.hits)] for key, hits in measured.correct.items()],
        "values": measured.values,
        "curves": measured.curves,
        "histograms": measured.histograms,
        "pictures": measured.pictures,
    }
    write_file(file, packed({k: hits.hits[None] for k, hits in measured.correct.items()}, rest))


def load_measured(file: Path, arms: Sequence[str]) -> Measured | None:
    """Read a file written by :func:`save_measured`; None if it is missing or damaged, or was written for other arms."""
    try:
        bits, rest = unpacked(file)
    except (OSError, ValueError):
        return None
    if rest["arms"] != list(arms):
        return None
    return Measured(
        {key: Correct(bits[key][0], images) for key, images, _ in rest["keys"]},
        rest["values"],
        {key: [(x, y) for x, y in points] for key, points in rest["curves"].items()},
        rest["histograms"],
        rest.get("pictures", {}),
    )


def packed(hits: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a ``.npz`` file that contains bool arrays ``(seeds, images)`` by key, as packed bits, and the
    JSON values ``rest``."""
    head = {"keys": list(hits), "images": [array.shape[1] for array in hits.values()], "rest": rest}
    arrays = {f"bits{i}": np.packbits(array, axis=1) for i, array in enumerate(hits.values())}
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, head=text, **arrays)
    return stream.getvalue()


def unpacked(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that was made with :func:`packed`, and return the arrays by key and the JSON values.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            bits = {
                key: np.unpackbits(arrays[f"bits{i}"], axis=1, count=images).astype(bool)
                for i, (key, images) in enumerate(zip(head["keys"], head["images"], strict=True))
            }
        return bits, head["rest"]
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{file}: the file is damaged ({error})") from error
