"""Handle Ctrl-C and SIGTERM during training. The first signal requests a stop at the next step; a second Ctrl-C exits
at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """A request to stop. ``signal`` is the received signal (``SIGINT`` or ``SIGTERM``), or 0 if there was none."""

    signal: int = 0


class Stopped(SystemExit):
    """The exception for a run that was saved and stopped because of a signal. ``code`` is 128 + the signal's number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(128 + number)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Interrupted(KeyboardInterrupt):
    """The exception for a run that was saved and stopped because of Ctrl-C. The message says how to resume the run."""


def leaving(number: int, text: str) -> Interrupted | Stopped:
    """Return the exception to raise after a signal, when the run is saved. ``text`` says how to resume the run."""
    return Interrupted(text) if number == signal.SIGINT else Stopped(number, text)


@contextlib.contextmanager
def stop_requests(tell: Callable[[int], None] = lambda _: None) -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM only set the returned request inside the ``with`` block. Restore the handlers afterwards.

    ``tell`` is called with each signal, from the signal handler. Outside the main thread this function does nothing,
    since Python allows signal handlers only in the main thread.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if request.signal and number == signal.SIGINT:
            os._exit(130)  # at once: the last checkpoint on disk is intact
        request.signal = number
        tell(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
