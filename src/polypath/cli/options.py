"""Turns the fields of a frozen dataclass into command-line options, with tyro."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import takewhile
from typing import TypeVar

T = TypeVar("T")
_FRAME = " ╭╮╰╯│"
_VALUES = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "[INT [INT ...]]": "whole numbers separated by spaces",
    "[FLOAT [FLOAT ...]]": "numbers separated by spaces",
}
"""tyro's notation for the values of an option, in words."""


def with_options(default: T, argv: list[str], prog: str) -> T:
    """Return a copy of ``default`` with the field values that ``argv`` sets (``--optim.lr 0.05``). ``--help`` lists all
    fields.

    Raises:
        ValueError: an option is unknown (the message suggests similar ones), or a value has a wrong type or is rejected
            by the dataclass.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(type(default), default=default, args=argv, prog=prog)
    except SystemExit as leave:
        if not leave.code:
            raise
        raise ValueError(_one_line(said.getvalue(), argv, prog)) from None


def named(argv: list[str]) -> dict[str, str]:
    """Map the dotted name of each field that ``argv`` sets to the first word of its value (empty if there is none)."""
    found: dict[str, str] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            *parents, last = name.replace("-", "_").split(".")
            following = argv[i + 1] if i + 1 < len(argv) and not argv[i + 1].startswith("--") else ""
            found[".".join([*parents, last.removeprefix("no_")])] = value if equals else following
    return found


def _one_line(boxed: str, argv: list[str], prog: str) -> str:
    """Return tyro's framed error as one line: the message, and the similar options that tyro suggests, if any. If a
    value cannot be parsed, the line has the option, its value and its legal values."""
    parts: list[list[str]] = [[]]
    for line in boxed.splitlines()[1:]:  # the first line is a title
        text = line.strip(_FRAME)
        if text and not text.strip("─-"):
            parts.append([])
        elif text:
            parts[-1].append(text)
    parts = [part for part in parts if part]
    message = " ".join(parts[0]) if parts else "the arguments cannot be parsed"
    near = [text.split()[0] for part in parts[1:] for text in part if text.startswith("--")]
    if "nrecognized" in message and near:
        message += f"; did you mean {' or '.join(dict.fromkeys(near))}?"
    if option := re.match(r"Error parsing (--\S+):", message):
        name = option[1]
        legal = next((t.removeprefix(name).strip() for part in parts[1:] for t in part if t.startswith(f"{name} ")), "")
        if legal:
            message = f"{name} {_given(name, argv)}: must be {_in_words(legal)}"
    return f"{message} (`{prog} --help` lists the options)"


def _given(option: str, argv: list[str]) -> str:
    """Return the words of ``argv`` after an option, up to the next option."""
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if equals else " ".join(takewhile(lambda word: not word.startswith("--"), argv[i + 1 :]))
    return ""


def _in_words(legal: str) -> str:
    """Say tyro's notation for the values of an option in words, where it is known."""
    other = legal.removeprefix("{None}|")
    return ("" if other == legal else "None or ") + _VALUES.get(other, other)
