"""The progress bar of a run, with the time left, on a terminal; elsewhere there is none."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True)
"""For the bar and for all that is printed while it is there: rich puts lines of the same console above the bar."""


class TrainingProgress:
    """A bar over the steps of a run, ``shown`` unless it is to be quiet or standard error is no terminal."""

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self.shown = not quiet and sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=CONSOLE,
            disable=not self.shown,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=total, completed=done)

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self) -> None:
        self.bar.advance(self.task)

    def describe(self, text: str) -> None:
        self.bar.update(self.task, description=text)
