"""Processes that must end when the process that started them ends."""

from __future__ import annotations

import os
import signal
import threading
import time


def belong_to(parent: int) -> None:
    """Make this process ignore Ctrl-C and SIGTERM, and exit within a second after the end of the process ``parent``,
    which started this process. Call this function from the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
