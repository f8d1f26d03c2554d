"""What the first image of a process would wait for, done before: Pillow's plugins and decoders are loaded at first use,
which takes tens of milliseconds."""

from __future__ import annotations

import contextlib
import io
from functools import cache

from PIL import Image

from polypath.data.images import BrokenImage, readable
from polypath.deploy.images import Preparation


def warm_decoders(preparation: Preparation) -> None:
    """Prepare a small image of each format that is read, from its bytes."""
    for data in _encoded():
        with contextlib.suppress(BrokenImage):
            preparation.prepared(data)


@cache
def _encoded() -> tuple[bytes, ...]:
    found = []
    for kind in readable():
        stream = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # a format that this Pillow reads and does not write
            Image.new("RGB", (48, 32), (128, 128, 128)).save(stream, kind)
            found.append(stream.getvalue())
    return tuple(found)
