"""Images of a report, as PNG inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a gallery: a PNG as a ``data:`` URL, a description, and a caption."""

    source: str
    about: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A gallery of pictures of one kind. ``wide`` means that each picture consists of several images side by side."""

    title: str
    text: str
    pictures: list[Picture]
    wide: bool = False


def png(picture: Tensor, most: int = 96) -> str:
    """Return an image ``(H, W, 3)`` uint8 as a ``data:`` URL, shrunk to sides of at most ``most`` pixels."""
    from PIL import Image

    image, data = Image.fromarray(picture.numpy()), io.BytesIO()
    image.thumbnail((most, most))
    image.save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
