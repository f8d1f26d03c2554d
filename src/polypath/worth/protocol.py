"""Defines the protocol ``anytime-1``, by which ``polypath bench anytime`` measures methods. ``docs/protocol.md``
describes it.

The protocol is frozen: if a number or a rule here changes, the protocol gets another name. So results under the same
name are comparable. The protocol does not depend on a library's random numbers, or on the order of the stored images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from polypath.analysis.deadline import Trace
from polypath.data.config import DataConfig
from polypath.data.sources import load_images
from polypath.data.split import Split

VERSION = "anytime-1"
TRACE = Path(__file__).parent / "bursty.json"
HELD_OUT = 0.1  # share of each class's training images that is held out
PROFILE_RUNS, WARM_UPS = 200, 10  # turns without a neighbour: measured turns, and warm-up turns before them
BOX = (0.02, 4.0)  # ends of the hypervolume's box in time, in units; its end in error is that of guessing
DIGESTS = {
    "train": "0a11c21c691f54f2d8f2dfc4f2d5509489a4a64d486e9683865c9636e5927063",
    "test": "aa916ba86cbced96aad7304446d1d4e6160bae24cd0627d9f2c45097e8967eb7",
}
"""Digests of JPEG-coded CIFAR-10, see :func:`~polypath.storage.digests.json_digest`."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images ``(N, H, W, C)`` uint8 and their labels ``(N,)`` int64, in the protocol's order."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Images:
        """Return the images at ``rows``."""
        return Images(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Task:
    """The images of a measurement.

    Attributes:
        name, note: name of the data set, and a note on the data set for readers.
        digests: digests of the complete training split and of the test split.
    """

    name: str
    note: str
    classes: tuple[str, ...]
    train: Images
    held_out: Images
    test: Images
    digests: dict[str, str]


def load_task(source: str) -> Task:
    """Load the images of a data set, ordered and split by the protocol's rules.

    Args:
        source: a folder or a name, as in ``DataConfig.source``.

    Raises:
        ValueError: images are missing, or have different sizes.
    """
    data = load_images(DataConfig(source=source))
    assert isinstance(data.train, Split)  # streaming was not requested
    assert isinstance(data.test, Split)
    whole, train = arranged(data.train, data.classes)
    test, digest = arranged(data.test, data.classes)
    rest, held_out = cut(whole)
    return Task(data.name, data.note, data.classes, rest, held_out, test, {"train": train, "test": digest})


def arranged(split: Split, classes: Sequence[str]) -> tuple[Images, str]:
    """Order images by the SHA-256 of their pixels. Return the ordered images, and one digest of all images.

    The digest is the SHA-256 of sorted lines, one for each image: the image's SHA-256, a space, and its class name.
    """
    pixels = np.ascontiguousarray(split.images.permute(0, 2, 3, 1).numpy())
    labels = split.labels.numpy()
    own = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
    lines = [f"{digest} {classes[label]}\n" for digest, label in zip(own, labels, strict=True)]
    order = np.array(sorted(range(len(lines)), key=lines.__getitem__), np.int64)
    text = "".join(lines[i] for i in order)
    return Images(pixels[order], labels[order]), hashlib.sha256(text.encode()).hexdigest()


def cut(images: Images) -> tuple[Images, Images]:
    """Split images into training and held-out images. The first tenth of each class, rounded down, is held out."""
    held = np.zeros(len(images), bool)
    for label in np.unique(images.labels):
        of_class = np.flatnonzero(images.labels == label)
        held[of_class[: int(HELD_OUT * len(of_class))]] = True
    return images.at(~held), images.at(held)


def read_trace(requests: int | None = None) -> Trace:
    """Read the trace of the protocol, or only its first ``requests`` requests."""
    values = json.loads(TRACE.read_text(encoding="utf-8"))
    trace = Trace(np.array(values["budgets"]), np.array(values["neighbour"], bool), values["seed"])
    return trace if requests is None else trace.first(requests)


def asked(trace: Trace, images: int) -> NDArray[np.int64]:
    """Return the index of the test image for each request of a trace, ``(requests,)``."""
    draws = [hashlib.sha256(f"{trace.seed} {i}".encode()).digest()[:8] for i in range(len(trace.budgets))]
    return np.array([int.from_bytes(draw) % images for draw in draws], np.int64)


def reference() -> nn.Module:
    """Build the network that defines the unit of time: the 19 3×3 convs of a ResNet-20, each with a ReLU, for 32×32
    pixels.

    It uses only torch, so that no method and no release of Polypath can change the unit.
    """
    widths = [3, *[16] * 7, *[32] * 6, *[64] * 6]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        stride = 2 if before in (16, 32) and after > before else 1
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def reference_input() -> torch.Tensor:
    return torch.zeros(1, 3, 32, 32)
