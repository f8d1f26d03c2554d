"""Ctrl-C and SIGTERM while training: the first asks to stop at the next step, a second Ctrl-C leaves at once."""

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
    """``signal`` is what was received: 0, ``SIGINT`` or ``SIGTERM``."""

    signal: int = 0


class Stopped(SystemExit):
    """A run has been saved and left because it was told to; ``code`` is 128 + the signal."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(128 + number)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Interrupted(KeyboardInterrupt):
    """The same for Ctrl-C; the message says how to go on."""


def leaving(number: int, text: str) -> Interrupted | Stopped:
    """What to raise after a signal, when all is saved; ``text`` says how to go on."""
    return Interrupted(text) if number == signal.SIGINT else Stopped(number, text)


@contextlib.contextmanager
def stop_requests(tell: Callable[[int], None] = lambda _: None) -> Iterator[StopRequest]:
    """Inside the block SIGINT and SIGTERM only leave word; handlers are put back afterwards.

    ``tell`` is called with each signal, from its handler.

    In a thread that is not the main one, nothing is changed: Python lets only that one have handlers.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if request.signal and number == signal.SIGINT:
            os._exit(130)  # at once: the last checkpoint on the disk is whole
        request.signal = number
        tell(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
