"""Prints the library's log on standard error while a command runs. Results go to standard output."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from polypath.core.display import printable


@contextmanager
def notes(*, as_json: bool) -> Iterator[None]:
    """Print the records of the ``polypath`` loggers, from level INFO on, while the ``with`` block runs. With
    ``as_json``, and in all ``torchrun`` processes but the first, print only errors. No other function installs a
    handler."""
    logger = logging.getLogger("polypath")
    before = logger.level, logger.propagate
    handler = _handler()
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if as_json or os.environ.get("RANK", "0") != "0" else logging.INFO)
    logger.propagate = False  # otherwise records appear twice if another package gave the root logger a handler
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # warnings about metadata that Polypath does not read
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _handler() -> logging.Handler:
    if not sys.stderr.isatty():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Plain())
        return handler
    return _Terminal()


class _Terminal(logging.Handler):
    """A handler that prints above progress bars with rich, which is imported at the first record."""

    @cached_property
    def _rich(self) -> logging.Handler:
        from rich.logging import RichHandler

        from polypath.training.progress import CONSOLE

        handler = RichHandler(console=CONSOLE, show_time=False, show_path=False)
        handler.setFormatter(_Printable())
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        self._rich.emit(record)


class _Printable(logging.Formatter):
    """A formatter that escapes terminal control characters, since names in a record may come from files."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


class _Plain(_Printable):
    """A formatter that begins records above INFO with their level (``warning: text``)."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
