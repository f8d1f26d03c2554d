"""A network's config: how to rebuild the network and how its images are prepared. It is saved with the network."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, cast

from polypath.core.checks import NAME, plain

Resize = Literal["crop", "squash", "pad"]
"""How an image is fitted to the network's size. ``crop``: resize the shorter side, then centre crop. ``squash``: resize
both sides (the aspect ratio changes). ``pad``: resize the longer side, then add black borders."""


class Normalisation(TypedDict):
    """A normalisation of pixels in [0, 1]: subtract each channel's mean, then divide by its standard deviation."""

    mean: Sequence[float]
    std: Sequence[float]


class ImageConfig(TypedDict, total=False):
    """A description of the training images. ``size`` is (height, width) in pixels; ``resize`` tells how images of other
    sizes are fitted to this size. ``to`` is the shorter side in pixels before a centre crop, by default the shorter
    side of ``size``."""

    size: Sequence[int]
    resize: Resize | None
    to: int | None


class NetConfig(TypedDict, total=False):
    """A network's config. Every key is optional; the config of a network that no family built is empty at first.

    Attributes:
        family: the family's name.
        arguments: the family's arguments.
        model: the registered name by which the network was created.
        paths: for an extracted network, the text of the choice, which refers to the family's full wiring.
        statistics: how the batch-norm statistics were recalibrated (images, seed), if they were.
        gates: how the gates were corrected (target, images, rates), if they were.
        classes: the names of the classes, in the order of the labels.
        normalisation, image: how the images are prepared.
        pretrained_cfg: the network's description in timm's format; see :mod:`polypath.core.timm_config`.
        fused: whether this is a fused network.
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
"""The keys that describe a network's images and classes. They do not depend on how the network is built."""


def check_classes(names: Any, outputs: int) -> tuple[str, ...]:
    """Check the names of the classes, and return them as a tuple.

    Raises:
        ValueError: entries that are not names, duplicates, more or fewer names than the head has outputs.
    """
    given = plain(names)
    if not isinstance(given, tuple) or not all(map(NAME.fits, cast(tuple[Any, ...], given))):
        raise ValueError(f"classes = {reprlib.repr(names)}: must be a list of names, one for each output of the head")
    found = cast(tuple[str, ...], given)
    if len(found) != outputs:
        raise ValueError(
            f"classes has {len(found)} names, but the network's head has {outputs} outputs; give one name for each"
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"classes: {twice!r} appears twice; give each output a different name")
    return found


def completed_classes(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Add names for the outputs without a trained class: ``unused 11`` and so on."""
    return (*names, *(f"unused {i}" for i in range(len(names), outputs)))
