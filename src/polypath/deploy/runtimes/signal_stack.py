"""The stack on which signals are handled stays as it was while OpenVINO compiles.

On a processor without int8 instructions OpenVINO 2026.4 leaves the calling thread with an alternate stack for signals
whose memory is freed, once it has compiled a graph in int8. Python handles signals on that stack, so the next Ctrl-C or
SIGTERM would be a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's alternate stack back; nothing but on Linux."""
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)
