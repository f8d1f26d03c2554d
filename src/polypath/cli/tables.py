"""Prints tables and JSON. Rich is imported when the first table is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from polypath.cli.output import fitting, say
from polypath.core.display import as_unicode

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    say(to_json(value, indent=2))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that every parser accepts: bytes of file names that are not UTF-8 are escaped."""
    return json.dumps(_unicode(value), indent=indent).replace(
        "\x7f", "\\u007f"
    )  # the only control character that json does not escape


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return as_unicode(value)
    if isinstance(value, dict):
        return {_unicode(key): _unicode(entry) for key, entry in value.items()}
    return [_unicode(entry) for entry in value] if isinstance(value, list | tuple) else value


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, notes: Sequence[str] = ()
) -> None:
    """Print a table; the first ``left`` columns are text, the others numbers."""
    from rich import box
    from rich.table import Table

    console, frame = stdout(), box.SIMPLE_HEAD
    if console.options.ascii_only:
        frame = box.Box(str(frame).replace("─", "-"), ascii=True)
    table = Table(title=fitting(title), title_justify="left", title_style="bold", box=frame, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(fitting(column), justify="left" if i < left else "right", no_wrap=i == 0 or i >= left)
    for row in rows:
        table.add_row(*map(fitting, row))
    with console.capture() as drawn:
        console.print(table)
        for note in notes:
            console.print(fitting(note), style="dim", markup=False, soft_wrap=True)
    for line in drawn.get().splitlines():
        print(line.rstrip())


class RowPrinter:
    """A table that prints each row as soon as it is added, so that no row is lost if a later one fails.

    Args:
        title: the line above the columns.
        columns: name and width of each column; the last column may be wider.
        left: names of the text columns; the others are numbers.
    """

    def __init__(self, title: str, columns: Sequence[tuple[str, int]], *, left: Sequence[str]) -> None:
        self._columns, self._left = [(name, max(width, len(name))) for name, width in columns], left
        self._title: str | None = title

    def add(self, row: Sequence[str]) -> None:
        if self._title is not None:
            names = [name for name, _ in self._columns]
            rule = "-" * (sum(width for _, width in self._columns) + 2 * len(names) - 2)
            print(f"{fitting(self._title)}\n{self._line(names)}\n{rule}")
            self._title = None
        print(self._line(row), flush=True)

    def _line(self, row: Sequence[str]) -> str:
        from rich.cells import cell_len

        cells = []
        for text, (name, width) in zip(map(fitting, row), self._columns, strict=True):
            space = " " * (width - cell_len(text))
            cells.append(text + space if name in self._left else space + text)
        return "  ".join(cells).rstrip()


def stdout() -> Console:
    """Return a console for standard output. If this is not a terminal, the console is wide, so that piped tables are
    not wrapped."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def watched(things: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Return ``things``. If standard error is a terminal, iterating over them shows a progress bar there."""
    if not sys.stderr.isatty():
        return things
    from rich.progress import track

    from polypath.training.progress import CONSOLE

    return track(things, what, total=total, console=CONSOLE, transient=True)


def millions(n: float) -> str:
    """Format a count in millions, with three significant digits or more (``0.370 M``)."""
    return f"{n / 1e6:.3g} M" if n < 1e9 else f"{n / 1e6:,.0f} M"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
