"""Sets the number of threads that torch uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Let torch use ``number`` threads for each operation within the block, then restore the earlier number. None means
    no change.

    torch stores the number for each Python thread, so blocks in several threads do not affect each other.
    """
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
