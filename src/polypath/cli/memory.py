"""Sets an option of the C memory allocator that makes networks on a CPU faster."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20  # the largest M_MMAP_THRESHOLD that glibc accepts


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system after every layer.

    The kernel zeroes fresh pages at first touch, which took as long as the convolutions themselves
    (`docs/decisions.md`). Tensors of up to 32 MiB benefit. This function does nothing except on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, LARGEST)
