"""A network's description in timm's format: ``net.pretrained_cfg``, from which timm resolves its data configs.

The keys ``normalisation``, ``image`` and ``classes`` of the config describe the training images. They take precedence
over the config's ``pretrained_cfg``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from polypath.core.checks import plain
from polypath.core.config import ImageConfig, NetConfig

CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}


def timm_config(config: NetConfig, in_chans: int, min_size: int, ends: Mapping[str, Any]) -> dict[str, Any]:
    """Make :attr:`PathNet.pretrained_cfg`; ``ends`` contains the entries for the network's first and last layers."""
    smallest = (in_chans, min_size, min_size)
    found: dict[str, Any] = {
        "architecture": config.get("model") or config.get("family"),
        "input_size": smallest,
        **config.get("pretrained_cfg", {}),
        "min_input_size": smallest,
        **ends,
    }
    found["input_size"] = (in_chans, *found["input_size"][1:])
    if image := config.get("image"):
        found |= _resized(image, in_chans, min_size)
    if norm := config.get("normalisation"):
        found |= {"mean": norm["mean"], "std": norm["std"]}
    return {key: plain(value) for key, value in found.items()}


def _resized(image: ImageConfig, in_chans: int, min_size: int) -> dict[str, Any]:
    height, width = image.get("size", (min_size, min_size))
    side, to = min(height, width), image.get("to") or min(height, width)
    share = side / to
    while math.floor(side / share) < to:  # timm computes the side as floor(side / share)
        share = math.nextafter(share, 0.0)
    mode = CROP_MODES[image.get("resize") or "crop"]
    return {"input_size": (in_chans, height, width), "crop_pct": share, "crop_mode": mode, "interpolation": "bilinear"}
