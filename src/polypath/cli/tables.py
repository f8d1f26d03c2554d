"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, notes: Sequence[str] = ()
) -> None:
    """A table on standard output; the first ``left`` columns are text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=i == 0 or i >= left)
    for row in rows:
        table.add_row(*row)
    console = stdout()
    with console.capture() as drawn:
        console.print(table)
        for note in notes:
            console.print(note, style="dim", markup=False, soft_wrap=True)
    for line in drawn.get().splitlines():
        print(line.rstrip())


def stdout() -> Console:
    """Standard output; wide where nobody looks, so that piped tables are not folded."""
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def watched(things: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """``things``, with a bar on standard error while they are gone through, where that is a terminal."""
    if not sys.stderr.isatty():
        return things
    from rich.progress import track

    from polypath.training.progress import CONSOLE

    return track(things, what, total=total, console=CONSOLE, transient=True)


def millions(n: float) -> str:
    """A count in millions, three significant digits or more (``0.370 M``)."""
    return f"{n / 1e6:.3g} M" if n < 1e9 else f"{n / 1e6:,.0f} M"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
