"""Reading arguments so that every mistake is one ``ValueError``."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

PROGRAM = "polypath"


class Parser(argparse.ArgumentParser):
    """argparse for ``polypath NAME``, raising ``ValueError`` where argparse would print and leave."""

    def __init__(self, name: str, description: str | None, **options) -> None:
        super().__init__(prog=f"{PROGRAM} {name}", description=description, allow_abbrev=False, **options)

    def add_json(self) -> None:
        self.add_argument("--json", action="store_true", help="print JSON for programs, errors too")

    def read(self, argv: list[str]) -> argparse.Namespace:
        """Parse ``argv`` whole.

        Raises:
            ValueError: missing, unknown or ill-formed arguments; for an unknown option, with near ones.
        """
        args, rest = self.parse_known_args(argv)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            kind = "option" if rest[0].startswith("-") else "argument"
            raise ValueError(f"{self.prog}: unknown {kind} {rest[0]!r}; {closest(rest[0], options)}")
        return args

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


def closest(name: str, known: Iterable[str], *, most: int = 12) -> str:
    """``did you mean …?`` with near names, or the list of them where nothing is near."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return f"there are {', '.join(known[:most])}{more}"


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
