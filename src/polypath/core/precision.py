"""The dtype for sums, exponentials and statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from polypath.core.recording import symbolic


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` as float32, or unchanged if it is float64: sums in half precision and bfloat16 lose too much."""
    if symbolic(x):
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))
