"""Says what a command is doing if it has printed nothing for two seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polypath.cli.output import say

PREPARING = "loading the paths; the first time on this machine, their times are measured and stored"
SECONDS = 2.0


@contextmanager
def patience(text: str = PREPARING) -> Iterator[Callable[[], None]]:
    """Print ``text`` to standard error if the ``with`` block takes longer than two seconds. The block can call the
    yielded function as soon as there is other output."""
    timer = threading.Timer(SECONDS, say, [text], {"error": True})
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()
