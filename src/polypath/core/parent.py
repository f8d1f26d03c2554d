"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import os
import signal
import threading
import time


def belong_to(parent: int) -> None:
    """From now on this process leaves Ctrl-C and SIGTERM to ``parent``, the process that started it, and ends within a
    second of its end, however that came. Called by the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
