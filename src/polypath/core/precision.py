"""The dtype for sums, exponentials and statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from polypath.core.recording import symbolic


def at_least_float32(x: Tensor) -> Tensor:
    """Convert ``x`` to float32, unless it is float64. Sums in half precision or bfloat16 are too inexact."""
    if symbolic(x):
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))
