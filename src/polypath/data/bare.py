"""Remove metadata from encoded images before Pillow opens them.

Pillow reads all metadata when it opens an image. It reads each chunk in Python, unpacks each profile and copies each
tag, however many there are and even if they overlap. So a megabyte of metadata can take half a minute or gigabytes of
memory. To avoid this, metadata that does not affect the pixels is removed first, and the remaining parts are counted.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
PNG_ONCE = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iTXt")  # iTXt only if it is XMP, which may contain the orientation
PNG_XMP = b"XML:com.adobe.xmp\0\0"
JPEG_EXIF, JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")  # fill bytes may precede a marker
JPEG_KEPT = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xE1, 0xEE}
GIF_NEXT = re.compile(rb"[!,;]")
MOST_WALKED = 4096  # segments of a JPEG before its first scan
MOST_SEGMENTS, MOST_SEGMENT_BYTES = 256, 2**18  # segments that are not metadata, and their bytes
MOST_BLOCKS = 2**16  # blocks of a GIF before its first frame
MOST_TAGS = 1024
LONGEST_HEAD = 1024  # bytes of a PPM's header
TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
TIFF_PARTS = (273, 324)  # tags with the offsets of strips and tiles


class ManyParts(Exception):
    """Raised if an image has more parts than the caller allows."""


@dataclass(frozen=True)
class Bare:
    """An encoded image without metadata.

    Attributes:
        data: the encoded image. The orientation, if any, is kept.
        parts: number of chunks, strips or tiles. Pillow reads them one by one in Python.
    """

    data: bytes
    parts: int = 0


def bare(name: str, data: bytes, most_parts: float) -> Bare:
    """Remove the metadata of an encoded image.

    Args:
        name: the format of ``data``, one of ``polypath.data.images.FORMATS``; it is found from the first bytes.
        most_parts: the largest number of parts that is allowed.

    Raises:
        ManyParts: the image has more than ``most_parts`` parts.
        ValueError: the image is damaged, or has far too much metadata that cannot be removed.
    """
    known: dict[str, Callable[[bytes, float], Bare]] = {
        "PNG": _png,
        "JPEG": _jpeg,
        "GIF": _gif,
        "TIFF": _tiff,
        "PPM": _ppm,
    }
    return known[name](data, most_parts) if name in known else Bare(data)


def modest(data: bytes) -> bool:
    """Return whether the tags of a TIFF or EXIF block fit into the block, so that reading them is not much work."""
    try:
        while data.startswith(JPEG_EXIF):
            data = data[len(JPEG_EXIF) :]
        _tags(data)
    except ValueError:
        return False
    return True


def _png(data: bytes, most_parts: float) -> Bare:
    kept, seen, walked, at = [PNG], set[bytes](), 0, len(PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name in PNG_ONCE and name not in seen:
            body = data[at + 8 : at + 8 + length]
            if modest(body) if name == b"eXIf" else name != b"iTXt" or body.startswith(PNG_XMP):
                kept.append(data[at:end])
                seen.add(name)
        elif name in (b"IDAT", b"IEND"):
            kept.append(data[at:end])
        walked += 1
        if name == b"IEND":
            break
        if walked > most_parts:
            raise ManyParts
        at = end
    return Bare(b"".join(kept), len(kept) - 1)


def _jpeg(data: bytes, most_parts: float) -> Bare:
    kept, seen, left, at = [data[:2]], set[bytes](), MOST_SEGMENT_BYTES, 2
    for _ in range(MOST_WALKED):
        begin = JPEG_MARKER.search(data, at)
        if begin is None or data[at] != 0xFF or begin.end() + 2 > len(data):
            raise ValueError("the image is damaged: its header ends before the first scan")
        at, marker = begin.end() - 1, data[begin.end() - 1]
        if marker in (0xDA, 0xD9):
            return Bare(b"".join([*kept, data[at - 1 :]]))
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length, which do not belong in a header
            at += 1
            continue
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        end = at + 1 + length
        if length < 2 or end > len(data):
            raise ValueError("the image is damaged: a segment of its header is too short or too long")
        segment = data[at - 1 : end]
        if marker == 0xE1:
            kind = next((kind for kind in (JPEG_EXIF, JPEG_XMP) if segment.startswith(kind, 4)), None)
            if kind is not None and kind not in seen and (kind == JPEG_XMP or modest(segment[4:])):
                kept.append(segment)
                seen.add(kind)
        elif marker in JPEG_KEPT:
            kept.append(segment)
            left -= len(segment)
        if len(kept) > MOST_SEGMENTS or left < 0:
            break
        at = end
    raise ValueError("the header is longer than that of any usual JPEG")


def _gif(data: bytes, most_parts: float) -> Bare:
    at = 13 + (3 * (2 << (data[10] & 7)) if len(data) > 10 and data[10] & 0x80 else 0)
    kept, blocks = [data[:at]], 0
    while (found := GIF_NEXT.search(data, at)) is not None and found[0] == b"!":
        begin = at = found.start()
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
            if blocks > MOST_BLOCKS:
                break
        at += 1
        blocks += 1
        if blocks > MOST_BLOCKS:
            raise ValueError(f"the image has more than {MOST_BLOCKS:,} blocks before its first frame")
        if data[begin + 1 : begin + 2] == b"\xf9":
            kept = [kept[0], data[begin:at]]
    return Bare(b"".join(kept) + (data[found.start() :] if found is not None else b""))


def _tiff(data: bytes, most_parts: float) -> Bare:
    if data[:4] == b"MM\0+":  # decoders disagree on how to read such files
        raise ValueError("the image is a big-endian BigTIFF, which is not supported")
    parts = max(count for count in (0, *(count for tag, count in _tags(data) if tag in TIFF_PARTS)))
    if parts > most_parts:
        raise ManyParts
    return Bare(data, parts)


def _tags(data: bytes) -> list[tuple[int, int]]:
    """Return (tag, number of values) for each tag in the first directory of a TIFF.

    Raises:
        ValueError: there are no tags, too many tags, or more values than fit into the file.
    """
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:3] == b"+"
    entry, head, field = (
        struct.Struct(order + ("HHQ8x" if big else "HHL4x")),
        (8, 16) if big else (4, 8),
        8 if big else 4,
    )
    try:
        (at,) = struct.unpack(order + ("Q" if big else "L"), data[slice(*head)])
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        if count > MOST_TAGS:
            raise ValueError(f"the image has more than {MOST_TAGS:,} tags")
        whole = min(count, (len(data) - at) // entry.size)  # the last entry may be cut off
        found = [entry.unpack_from(data, at + i * entry.size) for i in range(whole)]
    except (struct.error, OverflowError):
        raise ValueError("the image is damaged: it has no tags") from None
    sizes = [n * TIFF_WIDTHS.get(kind, 0) for _, kind, n in found]
    if sum(size for size in sizes if field < size <= len(data)) > len(data):  # Pillow does not read longer values
        raise ValueError("the values of the image's tags overlap")
    return [(tag, n) for tag, _, n in found]


def _ppm(data: bytes, most_parts: float) -> Bare:
    head = Image.open(io.BytesIO(data[:LONGEST_HEAD]), formats=["PPM"])
    if cast(int, cast(Image.Image, head).tile[0][2]) >= LONGEST_HEAD:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"the header has more than {LONGEST_HEAD:,} bytes")
    return Bare(data)
