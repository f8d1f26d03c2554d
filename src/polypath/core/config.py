"""What a network knows of itself: how to build it again and how its images are prepared. JSON values, saved with it."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, cast

from polypath.core.checks import NAME, plain

Resize = Literal["crop", "squash", "pad"]
"""How an image of another size or shape comes to the network's: shorter side to the size and centre crop, both sides
(aspect ratio lost), or longer side to the size and black borders."""


class Normalisation(TypedDict):
    """Per channel, of pixels in 0 … 1: what is subtracted and divided by."""

    mean: Sequence[float]
    std: Sequence[float]


class ImageConfig(TypedDict, total=False):
    """The images that a network was trained on: ``size`` in pixels (height, width), and how others are resized."""

    size: Sequence[int]
    resize: Resize | None
    to: int | None


class NetConfig(TypedDict, total=False):
    """Every key is optional; a network that no family has built has none.

    Attributes:
        family: the family's name.
        arguments: the family's arguments.
        model: the registered name that it was created by.
        paths: text of the choice that it was extracted under, on the family's full wiring.
        statistics: how its batch-norm statistics were recalibrated (images, seed), where they were.
        gates: what its gates were corrected to (target, images, rates), where they were.
        classes: names in the order of the labels.
        normalisation, image: how its images are prepared.
        pretrained_cfg: what it was made for, in timm's words; see :mod:`polypath.core.timm_config`.
        fused: whether it is a fused network.
    """

    family: str
    arguments: dict[str, Any]
    model: str
    paths: str
    statistics: dict[str, int | None]
    gates: dict[str, Any]
    classes: Sequence[str]
    normalisation: Normalisation
    image: ImageConfig
    pretrained_cfg: dict[str, Any]
    fused: bool


ABOUT = ("classes", "normalisation", "image", "pretrained_cfg")
"""What is known of a network's images and answers, whatever it is built from."""


def check_classes(names: Any, outputs: int) -> tuple[str, ...]:
    """Names in the order of the labels, as a tuple.

    Raises:
        ValueError: other things than names, a name twice, more or fewer of them than the head has outputs.
    """
    given = plain(names)
    if not isinstance(given, tuple) or not all(map(NAME.fits, cast(tuple[Any, ...], given))):
        raise ValueError(f"classes = {reprlib.repr(names)}: give a list of names, one for each output of the head")
    found = cast(tuple[str, ...], given)
    if len(found) != outputs:
        raise ValueError(
            f"classes: {len(found)} names, and the network's head has {outputs} outputs; give one for each"
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"classes: {twice!r} stands twice; give each output a name of its own")
    return found


def completed_classes(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """The names, and ``unused 11`` and so on for outputs that no class was trained for."""
    return (*names, *(f"unused {i}" for i in range(len(names), outputs)))
