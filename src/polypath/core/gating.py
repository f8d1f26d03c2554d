"""From a gate's logits ``(N, 2)``, shut and open, to its decisions ``(N,)`` (DRNN §3, after ConvNet-AIG)."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(logits: Tensor, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
    """Sampled decisions ``(N,)``, exactly 0 or 1, of logits ``(N, 2)``; their gradient is the softmax's.

    Gumbel-max: the arg-max of logits plus Gumbel noise is open with the softmax's probability. Decisions are float32,
    or float64 where the logits are.
    """
    device = logits.device if generator is None else generator.device
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # the negative logarithm of an exponential variable is Gumbel distributed
    noise = -torch.empty(logits.shape, device=device).exponential_(generator=generator).log()
    noisy = logits.to(dtype) + noise.to(logits.device, dtype)
    soft = (noisy / temperature).softmax(1)[:, 1]
    return (noisy[:, 1] > noisy[:, 0]).to(dtype) + (soft - soft.detach())


def decide(logits: Tensor) -> Tensor:
    """Decisions ``(N,)``, True for open, without noise."""
    shut, opened = logits.unbind(1)
    return opened > shut
