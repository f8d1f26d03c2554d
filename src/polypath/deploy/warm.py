"""Loads Pillow's plugins and decoders before the first image needs them, since loading takes tens of milliseconds."""

from __future__ import annotations

import contextlib
import io
from functools import cache

from PIL import Image

from polypath.data.images import BrokenImage, readable
from polypath.deploy.images import Preparation


def warm_decoders(preparation: Preparation) -> None:
    """Decode and prepare a small image of each supported format."""
    for data in _encoded():
        with contextlib.suppress(BrokenImage):
            preparation.prepared(data)


@cache
def _encoded() -> tuple[bytes, ...]:
    found = []
    for kind in readable():
        stream = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # a format that this Pillow reads but does not write
            Image.new("RGB", (48, 32), (128, 128, 128)).save(stream, kind)
            found.append(stream.getvalue())
    return tuple(found)
