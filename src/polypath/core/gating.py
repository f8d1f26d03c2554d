"""A gate's decisions ``(N,)``, made from its logits ``(N, 2)`` for closed and open (DRNN §3, after ConvNet-AIG)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polypath.core.precision import at_least_float32

Over = Literal["reaching", "all"]
"""The denominator of a gate's rate: the samples that reach the gate, or all samples."""


def straight_through(logits: Tensor, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
    """Sample decisions ``(N,)``, exactly 0 or 1, from logits ``(N, 2)``. The gradient is the softmax's gradient.

    This uses the Gumbel-max trick: the arg-max of logits plus Gumbel noise is open with the softmax's probability. The
    decisions are float32, or float64 for float64 logits.
    """
    logits = at_least_float32(logits)
    device = logits.device if generator is None else generator.device
    # the negative logarithm of an exponential variable is Gumbel distributed
    noise = -torch.empty(logits.shape, device=device, dtype=logits.dtype).exponential_(generator=generator).log()
    noisy = logits + noise.to(logits.device)
    soft = (noisy / temperature).softmax(1)[:, 1]
    return (noisy[:, 1] > noisy[:, 0]).to(soft.dtype) + (soft - soft.detach())


def decide(logits: Tensor) -> Tensor:
    """Return the decisions ``(N,)`` without noise, True for open."""
    shut, opened = logits.unbind(1)
    return opened > shut
