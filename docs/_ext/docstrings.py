"""Docstrings as this project writes them, for Sphinx: examples are code, aligned columns stay aligned."""

from __future__ import annotations

import ast
import re
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CONTINUES = re.compile(r"\s|[*-] |\d+\. |\.\. |.*::$")
"""A paragraph behind which an indented one belongs to it: a list, a directive, a section."""
COLUMNS = re.compile(r"\S {2,}\S")


def marked(lines: list[str]) -> list[str]:
    """Give indented paragraphs, and paragraphs of aligned columns, the directive that keeps them as they are."""
    out: list[str] = []
    before = ""  # the first line of the last paragraph that was not indented
    for blank, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if blank:
            out += paragraph
            continue
        indented = paragraph[0].startswith("    ")
        if indented and before and not CONTINUES.match(before):
            out += [f".. code-block:: {'python' if is_python(paragraph) else 'text'}", "", *paragraph]
            before = "    "  # what follows is indented as well, or another paragraph
        elif not indented and sum(map(bool, map(COLUMNS.search, paragraph))) > 1 and "===" not in paragraph[0]:
            out += [".. code-block:: text", "", *(f"    {line}" for line in paragraph)]
        else:
            out += paragraph
        if not indented:
            before = paragraph[-1]
    return out


def is_python(lines: list[str]) -> bool:
    try:
        ast.parse(textwrap.dedent("\n".join(lines)))
    except SyntaxError:
        return False
    return True


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = marked(lines)
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # a comment, or napoleon takes what stands before a colon for a type


def plain_defaults(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature that is Python: a default such as ``<factory>`` is not, and Sphinx would split types at commas."""
    return (signature and re.sub(r"= ?<[^<>]+>", "=...", signature)), returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon's
    app.connect("autodoc-process-signature", plain_defaults)
    return {"parallel_read_safe": True}
