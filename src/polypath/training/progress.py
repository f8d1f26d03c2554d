"""Show the progress of a run with its remaining time: a bar on a terminal, otherwise one line per minute."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True)
"""The console for the bar, and for all output while the bar is shown. Rich prints such output above the bar."""


EVERY = 60.0  # seconds


class TrainingProgress:
    """A progress bar over the steps of a run. The bar is ``shown`` if standard error is a terminal, unless ``quiet``.
    If the bar is not shown, ``tell`` is called with one line of text per minute."""

    def __init__(
        self, total: int, done: int = 0, *, quiet: bool = False, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.shown = not quiet and sys.stderr.isatty()
        self.total, self.done, self.tell = total, done, tell
        self.begun, self.told, self.first = time.monotonic(), time.monotonic(), done
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left"),
            console=CONSOLE,
            disable=not self.shown,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=total, completed=done)

    def __enter__(self) -> TrainingProgress:
        if self.shown:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:  # rich before 14.3 prints an empty line when it stops a hidden bar
            self.bar.stop()

    def advance(self) -> None:
        self.bar.advance(self.task)
        self.done += 1
        now = time.monotonic()
        if not self.shown and now - self.told >= EVERY:
            self.told = now
            left = (now - self.begun) / (self.done - self.first) * (self.total - self.done)
            self.tell(f"step {self.done} of {self.total}, about {datetime.timedelta(seconds=round(left))} left")

    def describe(self, text: str) -> None:
        self.bar.update(self.task, description=text)
