"""Text to show to users: printable names, short numbers, and tables for notebooks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str | os.PathLike[str]) -> str:
    """Make a text or file name printable on one line. Control characters, marks of writing direction and bytes that are
    not UTF-8 are escaped (``caf\\xe9``)."""
    return _UNPRINTABLE.sub(lambda found: escaped(found[0]), os.fspath(text))


def as_unicode(text: str) -> str:
    """Make a text storable in JSON and UTF-8 files: escape the bytes of file names that are not UTF-8."""
    return _SURROGATES.sub(lambda found: escaped(found[0]), text)


def escaped(character: str) -> str:
    """Escape a character as Python does. A surrogate that stands for a byte of a file name is escaped as this byte."""
    code = ord(character)
    return (
        f"\\x{code - 0xDC00:02x}"
        if 0xDC80 <= code <= 0xDCFF
        else character.encode("unicode_escape", "surrogatepass").decode()
    )


def short_count(n: int) -> str:
    """Write a count in few characters: ``3,125``, ``2^54``, ``4·3^17``, else ``1.42e14``."""
    if n < 100_000:
        return f"{n:,}"
    for factor in range(1, 10):
        if n % factor:
            continue
        for base in (2, 3, 5, 26):  # bases of the families' path counts
            exponent, rest = 0, n // factor
            while rest % base == 0:
                rest, exponent = rest // base, exponent + 1
            if rest == 1 and exponent > 2:
                return f"{base}^{exponent}" if factor == 1 else f"{factor}·{base}^{exponent}"
    return f"{Decimal(n):.2e}".replace("e+", "e")  # n may be too large for a float


def short_macs(macs: float) -> str:
    """Write a number of multiply-adds with three or four digits: ``5.21 M``, ``1.30 G``."""
    scaled, letter = (macs / 1e6, "M") if macs < 1e9 else (macs / 1e9, "G")
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make an HTML ``<table>`` of plain texts, which are escaped; the first cell of each row is its header."""
    parts = [f"<caption>{escape(caption)}</caption>"]
    if head:
        columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
        parts.append(f"<thead><tr>{columns}</tr></thead>")
    parts.append("<tbody>")
    for name, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        parts.append(f'<tr><th scope="row">{escape(name)}</th>{values}</tr>')
    return f"<table>{''.join(parts)}</tbody></table>"
