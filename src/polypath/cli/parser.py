"""An argument parser that raises one ``ValueError`` for every mistake."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from polypath.core.checks import Rule, did_you_mean, number, whole

PROGRAM = "polypath"


class Parser(argparse.ArgumentParser):
    """An argparse parser for ``polypath NAME`` that raises ``ValueError`` where argparse would print and exit."""

    def __init__(self, name: str, description: str | None, **options) -> None:
        super().__init__(prog=f"{PROGRAM} {name}", description=description, allow_abbrev=False, **options)

    def add_json(self) -> None:
        self.add_argument("--json", action="store_true", help="print results and errors as JSON")

    def add_paths(self) -> None:
        self.add_argument(
            "--paths",
            action="append",
            metavar="TEXT",
            help="a choice, such as column=3, instead of the named paths; 'found' means the paths found by `polypath "
            "search`; repeatable",
        )

    def add_profile(self) -> None:
        self.add_argument(
            "--profile",
            type=_profile,
            default="stored",
            metavar="fresh|SECONDS",
            help="measure again how long each path takes on this machine; SECONDS: measure each path for this long "
            "(default: use the times stored by an earlier start)",
        )

    def add_precision(self) -> None:
        self.add_argument(
            "--precision",
            choices=("auto", "f32", "int8"),
            default="auto",
            help="which paths of the bundle to use (default auto: the float32 paths, and the int8 paths if their "
            "errors are known for this processor's instructions)",
        )

    def add_allow_host(self) -> None:
        self.add_argument(
            "--allow-host",
            action="append",
            default=[],
            metavar="NAME",
            help="also accept requests to this host name (*: to any name); repeatable",
        )

    def add_data_moved(self) -> None:
        self.add_argument(
            "--data-moved",
            metavar="DIR",
            help="new folder of the run's images, if the folder was moved (must contain the same images)",
        )

    def read(self, argv: list[str]) -> argparse.Namespace:
        """Parse all of ``argv``.

        Raises:
            ValueError: an argument is missing, unknown or malformed. For an unknown option, the message suggests
                similar ones.
        """
        args, rest = self.parse_known_args(argv)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            kind = "option" if rest[0].startswith("-") else "argument"
            raise ValueError(f"{self.prog}: unknown {kind} {rest[0]!r}; {did_you_mean(rest[0], options)}")
        return args

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


def number_of(kind: type[int] | type[float], rule: Rule) -> Callable[[str], Any]:
    """Return an argparse type for the numbers that ``rule`` allows."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if not rule.fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {rule.legal}")
        return value

    return read


positive = number_of(int, whole(1))


def _profile(text: str) -> Any:
    if text in ("stored", "fresh"):
        return text
    try:
        return number_of(float, number(above=0))(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not stored, fresh or a number of seconds above 0") from None
