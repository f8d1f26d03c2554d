"""Suppress loggers, warnings and standard output of other code inside a block."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator


@contextlib.contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Generator[None]:
    """Inside the block these loggers log nothing below ``level``."""
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
    """Inside the block warnings and standard output are suppressed, and these loggers log only errors."""
    with quiet_loggers(*loggers), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
