"""Suppress loggers, warnings and standard output of other code inside a block."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator


@contextlib.contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Generator[None]:
    """Suppress messages of these loggers below ``level``, inside the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


@contextlib.contextmanager
def quiet(*loggers: str) -> Generator[None]:
    """Suppress warnings, standard output, and messages of these loggers other than errors, inside the block."""
    with quiet_loggers(*loggers), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
