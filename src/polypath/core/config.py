"""A network's config, saved with it as JSON: how to rebuild the network and how its images are prepared."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, cast

from polypath.core.checks import NAME, plain

Resize = Literal["crop", "squash", "pad"]
"""How an image is fitted to the network's size. ``crop``: resize the shorter side, then centre crop. ``squash``: resize
both sides (the aspect ratio changes). ``pad``: resize the longer side, then add black borders."""


class Normalisation(TypedDict):
    """Mean and standard deviation per channel, for pixels in [0, 1]: subtract the mean, then divide."""

    mean: Sequence[float]
    std: Sequence[float]


class ImageConfig(TypedDict, total=False):
    """The images that a network was trained on: ``size`` in pixels (height, width), and how images of other sizes are
    fitted to it (``resize``). ``to`` is the shorter side in pixels before a centre crop; None means ``size``."""

    size: Sequence[int]
    resize: Resize | None
    to: int | None


class NetConfig(TypedDict, total=False):
    """A network's config. Every key is optional; a network that was not built by a family has none.

    Attributes:
        family: the family's name.
        arguments: the family's arguments.
        model: the registered name by which the network was created.
        paths: if the network was extracted, the text of the extracted choice, on the family's full wiring.
        statistics: how the batch-norm statistics were recalibrated (images, seed), if they were.
        gates: how the gates were corrected (target, images, rates), if they were.
        classes: names in the order of the labels.
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
"""The keys that describe a network's images and classes and do not depend on how it is built."""


def check_classes(names: Any, outputs: int) -> tuple[str, ...]:
    """Check names of classes, and return them as a tuple.

    Raises:
        ValueError: entries that are not names, duplicates, more or fewer names than the head has outputs.
    """
    given = plain(names)
    if not isinstance(given, tuple) or not all(map(NAME.fits, cast(tuple[Any, ...], given))):
        raise ValueError(f"classes = {reprlib.repr(names)}: give a list of names, one for each output of the head")
    found = cast(tuple[str, ...], given)
    if len(found) != outputs:
        raise ValueError(
            f"classes: {len(found)} names, but the network's head has {outputs} outputs; give one for each"
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"classes: {twice!r} appears twice; give each output a different name")
    return found


def completed_classes(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Complete the names with ``unused 11`` and so on, for outputs without a trained class."""
    return (*names, *(f"unused {i}" for i in range(len(names), outputs)))
