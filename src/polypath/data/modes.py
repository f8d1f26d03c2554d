"""Convert images of any Pillow mode to 8-bit grey or RGB, turn them upright, and make transparent pixels white."""

from __future__ import annotations

import re

import numpy as np
from PIL import ExifTags, Image

from polypath.data.bare import modest

COLOURS = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
TRANSPARENT = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}
DEEP_GREY = ("PNG", "PPM")  # formats whose mode I is 16 bits deep
DEEP_COLOUR = re.compile(";16[BLN]")  # part of a raw mode, Pillow's name of the pixel layout in the file
DIMMEST = 4096
"""If all 16-bit pixels are below this value, they probably have only 10 or 12 bits. The file does not record this."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Maps an EXIF orientation to the transpose that makes the image upright."""
PHOTOMETRIC, BITS = 262, 258  # tags of a TIFF


def is_grey(mode: str) -> bool:
    """Return whether images of this Pillow mode are grey."""
    return mode.startswith("I") or (COLOURS | TRANSPARENT).get(mode) == "L"


def plain(image: Image.Image) -> Image.Image:
    """Load an image as mode ``L`` or ``RGB``, upright, without metadata, and with transparent pixels blended onto
    white.

    Return ``image`` itself if nothing has to be changed.

    Raises:
        ValueError: the range or the meaning of the pixels is unknown. Decoders may raise any other exception.
    """
    deep = bool(DEEP_COLOUR.search(_raw_mode(image)))
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in DEEP_GREY):
        out = Image.fromarray(_grey(image))
    elif image.mode not in COLOURS and image.mode not in TRANSPARENT:
        raise ValueError(f"pixels of mode {image.mode} have an unknown range; convert the image to 8-bit grey or RGB")
    else:
        if deep:  # Pillow keeps only the upper 8 bits
            _check_range(256 * _brightest(image) + 255)
        out = _eight_bits(image, deep)
    if (turn := TURNS.get(_orientation(image))) is not None:
        out = out.transpose(turn)
    if out is not image:
        out.format = image.format
        out.info = {}  # the orientation must not be applied a second time
    return out


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's raw mode, the layout of the pixels in the file. Call this before the image is loaded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _orientation(image: Image.Image) -> int:
    """Return the orientation given by EXIF or XMP data, or 1 (upright) if these data cannot be read."""
    if image.format == "TIFF":  # Pillow has already turned the image
        return 1
    if isinstance(exif := image.info.get("exif"), bytes) and not modest(exif):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata may raise any exception, but the pixels are still good
        return 1
    return value if isinstance(value, int) else 1


def _grey(image: Image.Image) -> np.ndarray:
    """Convert grey pixels of 12 or 16 bits to 8 bits ``(H, W)``."""
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(BITS) == (12,) else 16
    levels, white = np.asarray(image), 2**bits - 1
    if bits == 16 and levels.any():
        _check_range(int(levels.max()))
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow handles only up to 8 bits
        levels = white - levels
    if isinstance(clear := image.info.get("transparency"), int):
        levels = np.where(levels == clear, white, levels)
    return (levels >> (bits - 8)).astype(np.uint8)


def _eight_bits(image: Image.Image, deep: bool) -> Image.Image:
    """Convert an image of any 8-bit mode to ``L`` or ``RGB``, with transparent pixels blended onto white."""
    clear = image.info.get("transparency")
    palette = image.palette if image.mode == "P" else None
    if image.mode not in TRANSPARENT and clear is None and not (palette and palette.mode.endswith("A")):
        mode = COLOURS[image.mode]
        return image if image.mode == mode else image.convert(mode)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    elif deep and isinstance(clear, tuple):
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    grey = (COLOURS | TRANSPARENT)[image.mode] == "L"
    image = image.convert("LA" if grey else "RGBA")
    out = Image.new("L" if grey else "RGB", image.size, "white")
    out.paste(image.convert(out.mode), mask=image.getchannel("A"))
    return out


def _brightest(image: Image.Image) -> int:
    bands = [image.getchannel(band) for band in image.getbands() if band not in "Aa"]
    return max(int(np.asarray(band).max()) for band in bands)


def _check_range(brightest: int) -> None:
    if brightest < DIMMEST:
        raise ValueError(
            f"16-bit pixels of at most {brightest:,} would be nearly black, and their true range is unknown; "
            "scale them to 0 ... 65,535, or to 8 bits"
        )
