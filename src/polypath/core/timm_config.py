"""What a network says of itself in timm's words: ``net.pretrained_cfg``, which timm's data configs are resolved from.

What its config knows of the images that it was trained on comes first (``normalisation``, ``image``, ``classes``), then
what it was made for (``pretrained_cfg``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from polypath.core.checks import plain
from polypath.core.config import ImageConfig
from polypath.core.wiring import Unit

if TYPE_CHECKING:
    from polypath.core.network import PathNet

CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}


def timm_config(net: PathNet) -> dict[str, Any]:
    """See :attr:`PathNet.pretrained_cfg`."""
    config, side = net.config, net.min_size
    found: dict[str, Any] = {
        "architecture": config.get("model") or config.get("family") or type(net).__name__,
        "input_size": (net.in_chans, side, side),
        **config.get("pretrained_cfg", {}),
        "min_input_size": (net.in_chans, side, side),
        "num_classes": net.num_classes,
    }
    last = net.wiring.by_name.get(net.wiring.output)
    if isinstance(last, Unit):
        found["classifier"] = last.module
    convs = tuple(net.first_convs())
    found["first_conv"] = convs[0] if len(convs) == 1 else convs
    found["input_size"] = (net.in_chans, *found["input_size"][1:])
    if image := config.get("image"):
        found |= _resized(net, image)
    if norm := config.get("normalisation"):
        found |= {"mean": norm["mean"], "std": norm["std"]}
    if "classes" in config:
        found["label_names"] = net.class_names
    return {key: plain(value) for key, value in found.items()}


def _resized(net: PathNet, image: ImageConfig) -> dict[str, Any]:
    height, width = image.get("size", (net.min_size, net.min_size))
    side, to = min(height, width), image.get("to") or min(height, width)
    share = side / to
    while math.floor(side / share) < to:  # timm divides again, and rounds down
        share = math.nextafter(share, 0.0)
    mode = CROP_MODES[image.get("resize") or "crop"]
    return {
        "input_size": (net.in_chans, height, width),
        "crop_pct": share,
        "crop_mode": mode,
        "interpolation": "bilinear",
    }
