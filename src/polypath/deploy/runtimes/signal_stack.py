"""Restores the thread's signal stack after OpenVINO compiles.

On a processor without int8 instructions, OpenVINO 2026.4 has a bug when it compiles an int8 graph. The calling thread
keeps an alternate signal stack, but the memory of this stack is freed. Python handles signals on that stack, so the
next Ctrl-C or SIGTERM would cause a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """The structure ``stack_t`` of Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack after the block. Do nothing on systems other than Linux."""
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
