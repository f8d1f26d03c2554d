"""Compares an export with the eager network, and refuses an export that differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Relative and absolute tolerance in float32: ``|a − b| ≤ TOLERANCE · (min(1, m) + |b|)``, where m is the largest
``|b|`` of a batch. Because of m, the tiny outputs of an untrained network must match in as many digits as others."""
BATCHES = (1, 3)


@dataclass(frozen=True)
class Check:
    """The largest difference between a runtime's outputs and eager's: absolute, and as a share of the tolerance."""

    runtime: str
    max_abs: float
    share: float

    def __str__(self) -> str:
        return f"{self.runtime}: max difference {self.max_abs:.2e}"


def compare(
    runtime: str, run: Callable[[np.ndarray], np.ndarray], net: nn.Module, shape: Sequence[int], what: str
) -> Check:
    """Run batches of one and of three random inputs of ``shape`` ``(C, …)`` in the runtime and in eager.

    Raises:
        ValueError: the outputs have another shape, or differ by more than :data:`TOLERANCE`. The message begins with
            ``what``.
    """
    worst = share = 0.0
    for seed, batch in enumerate(BATCHES):
        x = images(batch, shape, seed)
        with torch.inference_mode():
            wanted = net(x).numpy()
        found = np.asarray(run(x.numpy()))
        if found.shape != wanted.shape:
            raise ValueError(f"{what}: {runtime} returns shape {found.shape}, the network {wanted.shape}; refused")
        off = np.abs(found - wanted)
        worst = max(worst, float(off.max()))
        size = np.abs(wanted)
        share = max(share, float((off / (TOLERANCE * (min(1.0, float(size.max())) + size))).max()))
        if not np.isfinite(found).all():
            share = float("inf")
    if not share <= 1.0:
        raise ValueError(
            f"{what}: {runtime} differs from eager by up to {worst:.2e}, more than {TOLERANCE:g} relative and "
            "absolute; refused"
        )
    return Check(runtime, worst, share)


def images(n: int, shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
