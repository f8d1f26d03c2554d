"""Resize images and convert them to uint8 arrays. This module does not import torch, since the process that decodes
large images uses it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from polypath.data.config import Resize


def fit(image: Image.Image, side: int | None, policy: Resize) -> Image.Image:
    """Resize an image to ``side`` x ``side`` pixels, bilinear with antialiasing. If ``side`` is None, keep the size.

    ``crop`` uses the central square, ``squash`` stretches the image to a square, and ``pad`` keeps the shape and adds
    black borders.
    """
    width, height = image.size
    if side is None or (width, height) == (side, side):
        return image
    if policy == "squash":
        return image.resize((side, side), Image.Resampling.BILINEAR)
    if policy == "crop":
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        return cut_and_resize(image, (left, top, left + short, top + short), side)
    scale = side / max(width, height)
    inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    out = Image.new(image.mode, (side, side))
    out.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    return out


def cut_and_resize(image: Image.Image, box: tuple[int, int, int, int], side: int) -> Image.Image:
    """Resize the box (left, top, right, bottom) to ``side`` x ``side`` pixels, bilinear with antialiasing."""
    return image.crop(box).resize((side, side), Image.Resampling.BILINEAR)  # resize(box=) would read beyond the box


def pixels(image: Image.Image, channels: int | None) -> np.ndarray:
    """Convert an image to an array ``(C, H, W)`` uint8. With ``channels`` None, a grey image keeps its one channel."""
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    array = np.array(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
