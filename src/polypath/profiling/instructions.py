"""Finds the kind of the processor's instructions for products of int8 numbers."""

from __future__ import annotations

import platform
from functools import cache

KINDS = ("avx2", "avx512", "avx_vnni", "avx512_vnni", "amx", "neon")
"""The known kinds; any further kind is called ``other``. ``avx2`` and ``avx512`` add products in 16 bits, which can
overflow. The remaining kinds add products in 32 bits."""
_OF_FLAGS = (
    ("amx", {"amx_int8"}),
    ("avx512_vnni", {"avx512_vnni"}),
    ("avx512", {"avx512bw"}),
    ("avx_vnni", {"avx_vnni"}),
    ("avx2", {"avx2"}),
)


@cache
def instructions() -> str:
    """Return the kind of this machine, one of :data:`KINDS` or ``other``.

    Answers in int8 are valid only for one kind, since runtimes choose kernels by the kind. On x86, the kind is read
    from ``/proc/cpuinfo``, so on systems other than Linux it is ``other``.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "neon"
    return kind_of(_flags())


def kind_of(flags: set[str]) -> str:
    """Return the best kind that a processor with these flags (Linux's names) supports."""
    return next((kind for kind, needed in _OF_FLAGS if needed <= flags), "other")


def has_bf16() -> bool:
    """Return whether the processor has instructions for bfloat16. Without them, bfloat16 is emulated, or float32 is
    used instead."""
    return bool(_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def _flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return set(value.split())
    except OSError:
        pass
    return set()
