"""One setting of the process for networks on a CPU."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20  # the most that glibc takes for M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the system after every layer.

    Fresh pages are zeroed at first touch, which cost as much as the convolutions themselves (`docs/decisions.md`).
    Tensors of up to 32 MiB profit. Elsewhere than on Linux with glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, LARGEST)
