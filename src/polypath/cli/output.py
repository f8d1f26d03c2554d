"""Text for terminals that cannot show all of it: plain characters in place of ours, escapes in place of others."""

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
"""What stands for characters that we use; frames have a rule of their own."""
HANDLER = "polypath.plain"


@contextmanager
def plain_where_needed() -> Iterator[None]:
    """Within, standard output and standard error take any text: where their encoding lacks them, ``±`` becomes ``+-``,
    and a byte of a file name that is not UTF-8 ``\\xe9``."""
    codecs.register_error(HANDLER, _plain)
    changed: list[tuple[io.TextIOWrapper, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in reversed(changed):  # they may be one
            with suppress(OSError, ValueError):  # closed meanwhile, or its reader has gone
                stream.reconfigure(errors=errors)


def fitting(text: str) -> str:
    """A text on one line as standard output will show it, for what has to know its width."""
    text, encoding = printable(text), getattr(sys.stdout, "encoding", None) or "utf-8"
    codecs.register_error(HANDLER, _plain)
    return text.encode(encoding, HANDLER).decode(encoding)


def say(*lines: str, error: bool = False) -> None:
    """Print lines of text. The one place that does, for names in them come from files: what would steer a terminal is
    shown as escapes."""
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
