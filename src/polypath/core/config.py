"""What a network knows of itself: how to build it again and how its images are prepared. JSON values, saved with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict


class Normalisation(TypedDict):
    """Per channel, of pixels in 0 … 1: what is subtracted and divided by."""

    mean: Sequence[float]
    std: Sequence[float]


class ImageConfig(TypedDict, total=False):
    """The images that a network was trained on: ``size`` in pixels (height, width), and how others are resized."""

    size: Sequence[int]
    resize: str | None
    to: int | None


class NetConfig(TypedDict, total=False):
    """Every key is optional; a network that no family has built has none.

    Attributes:
        family: the family's name.
        arguments: the family's arguments.
        model: the registered name that it was created by.
        paths: text of the choice that it was extracted under, on the family's full wiring.
        statistics: how its batch-norm statistics were recalibrated (images, seed), where they were.
        classes: names in the order of the labels.
        normalisation, image: how its images are prepared.
        fused: whether it is a fused network.
    """

    family: str
    arguments: dict[str, Any]
    model: str
    paths: str
    statistics: dict[str, int | None]
    classes: Sequence[str]
    normalisation: Normalisation
    image: ImageConfig
    fused: bool
