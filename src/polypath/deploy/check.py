"""Compares an export with the network in eager PyTorch, and refuses an export that differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Relative and absolute tolerance in float32: ``|a − b| ≤ TOLERANCE · (min(1, m) + |b|)``, where m is the largest
``|b|`` of a batch. Because of m, tiny outputs (of an untrained network) must match in as many digits as larger ones."""
BATCHES = (1, 3)


@dataclass(frozen=True)
class Check:
    """The largest difference between the outputs of a runtime and of eager PyTorch.

    ``max_abs`` is the absolute difference, and ``share`` is the difference as a share of the tolerance.
    """

    runtime: str
    max_abs: float
    share: float

    def __str__(self) -> str:
        return f"{self.runtime}: max difference {self.max_abs:.2e}"


def compare(
    runtime: str, run: Callable[[np.ndarray], np.ndarray], net: nn.Module, shape: Sequence[int], what: str
) -> Check:
    """Compare a runtime with eager PyTorch on batches of one and of three random inputs of ``shape`` ``(C, …)``.

    Raises:
        ValueError: the runtime's outputs have a wrong shape, or differ from eager by more than :data:`TOLERANCE`. The
            message begins with ``what``.
    """
    worst = share = 0.0
    for seed, batch in enumerate(BATCHES):
        x = images(batch, shape, seed)
        with torch.inference_mode():
            wanted = net(x).numpy()
        found = np.asarray(run(x.numpy()))
        if found.shape != wanted.shape:
            raise ValueError(
                f"{what} is refused: {runtime} returns shape {found.shape}, but the network returns {wanted.shape}"
            )
        off = np.abs(found - wanted)
        worst = max(worst, float(off.max()))
        size = np.abs(wanted)
        share = max(share, float((off / (TOLERANCE * (min(1.0, float(size.max())) + size))).max()))
        if not np.isfinite(found).all():
            share = float("inf")
    if not share <= 1.0:
        raise ValueError(
            f"{what} is refused: {runtime} differs from eager PyTorch by up to {worst:.2e}, which is more than the "
            f"tolerance of {TOLERANCE:g} (relative and absolute)"
        )
    return Check(runtime, worst, share)


def images(n: int, shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
