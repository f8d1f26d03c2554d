"""Prints text on terminals that cannot show all characters.

Characters that Polypath itself uses are replaced by plain ones, all others by escapes.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from polypath.core.display import escaped, printable

PLAIN = {
    **dict(zip("–—−‘’“”·•×µ∘₁₂₃", "---''\"\"**xuo123", strict=True)),
    **dict(zip("…±→≤≥≈≠√", ("...", "+-", "->", "<=", ">=", "~", "!=", "sqrt"), strict=True)),
    **dict(zip("²³⁴⊕‖", ("^2", "^3", "^4", "(+)", "||"), strict=True)),
    **dict(zip("§Σλθρ", ("sec. ", "sum ", "lambda", "theta", "rho"), strict=True)),
}
"""Plain replacements for the characters that Polypath uses. The lines of frames are replaced by :func:`_of_one`."""
HANDLER = "polypath.plain"


@contextmanager
def plain_where_needed() -> Iterator[None]:
    """Make standard output and standard error accept any text. Characters that their encoding lacks are replaced: ``±``
    by ``+-``, a byte of a file name that is not UTF-8 by ``\\xe9``."""
    codecs.register_error(HANDLER, _plain)
    changed: list[tuple[io.TextIOWrapper, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in reversed(changed):  # standard output and error may be the same stream
            with suppress(OSError, ValueError):  # the stream was closed meanwhile, or its reader has exited
                stream.reconfigure(errors=errors)


def fitting(text: str) -> str:
    """Return a one-line text as standard output will show it. Its width can then be measured."""
    text, encoding = printable(text), getattr(sys.stdout, "encoding", None) or "utf-8"
    codecs.register_error(HANDLER, _plain)
    return text.encode(encoding, HANDLER).decode(encoding)


def say(*lines: str, error: bool = False) -> None:
    """Print lines of text. Terminal control characters are shown as escapes, since names may come from files. All
    printing must go through this function."""
    stream = sys.stderr if error else sys.stdout
    print(*(printable(line) for text in lines for line in text.split("\n")), sep="\n", file=stream, flush=True)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_of_one, error.object[error.start : error.end])), error.end


def _of_one(character: str) -> str:
    if "─" <= character <= "╿":  # frames and bars
        return "|" if character in "│┃┆┇┊┋║╎╏" else "-" if character in "─━┄┅┈┉═╌╍╴╶╸╺╼╾" else "+"
    return PLAIN.get(character) or escaped(character)
