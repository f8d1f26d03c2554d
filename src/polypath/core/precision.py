"""The type that sums, exponentials and statistics are computed in."""

from __future__ import annotations

import torch
from torch import Tensor

from polypath.core.recording import symbolic


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it is float64: half precision and bfloat16 lose too much in a sum."""
    if symbolic(x):
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))
