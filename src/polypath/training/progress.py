"""What a person sees while a run goes on: a bar with the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar over the steps of a run, and lines above it. Quiet where standard error is no terminal."""

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False) -> None:
        shown = not quiet and sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=not shown,
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


def say(text: str) -> None:
    """A line for a person, on standard error, also where that is no terminal."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
