"""Muon (Jordan et al. 2024): SGD with orthogonalised momentum. A conv weight is treated as a matrix.

    B ← lerp(B, G, 1 - μ)                     momentum; with Nesterov momentum, use lerp(G, B, μ) instead of B below
    O ≈ U Vᵀ of B = U S Vᵀ                    five Newton-Schulz steps, see :func:`orthogonal`
    W ← (1 - lr·λ) W - lr·√max(1, m/n) O      W as a matrix (m, n); for a conv, out × (in · height · width)

These are the equations of ``torch.optim.Muon``. That class accepts only matrices and computes O in bf16, which
processors without bf16 instructions must emulate. Here O has the dtype of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)
STEPS = 5
SMALLEST = 1e-7


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix ``(m, n)`` with the singular vectors of ``matrix`` and singular values near 1.

    The matrix is divided by its Frobenius norm. Then each of five steps maps every singular value s to a·s + b·s³ +
    c·s⁵. After the last step, singular values that were above 0.003 are between 0.68 and 1.21.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=SMALLEST)
    for _ in range(STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def products(rows: int, columns: int) -> int:
    """Count the MACs of :func:`orthogonal` for one matrix."""
    short, long = sorted((rows, columns))
    return STEPS * (2 * short * short * long + short**3)


class Muon(Optimizer):
    """The Muon optimiser. The module's docstring states its equations.

    Args:
        params: parameters with two or more dimensions; all dimensions after the first are flattened.
        dtype: dtype in which O is computed. None uses the dtype of the parameters; torch's class uses
            ``torch.bfloat16``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})
        self.dtype, self.macs = dtype, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient. The MACs of the matrix products are added to ``macs``."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad, group)
        return loss

    def _step(self, p: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state, momentum, lr = self.state[p], group["momentum"], group["lr"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = (grad.lerp(buffer, momentum) if group["nesterov"] else buffer).flatten(1)
        rows, columns = update.shape
        self.macs += products(rows, columns)
        change = orthogonal(update.to(self.dtype or update.dtype)).reshape(p.shape)
        p.mul_(1 - lr * group["weight_decay"])
        p.add_(change, alpha=-lr * math.sqrt(max(1.0, rows / columns)))


class Together(Optimizer):
    """An optimiser that uses Muon for some parameters and another optimiser for the rest. Its parameter groups and its
    state are those of both optimisers."""

    def __init__(self, muon: Muon, rest: Optimizer) -> None:
        super().__init__([*muon.param_groups, *rest.param_groups], {})
        self.muon, self.rest = muon, rest
        muon.state = rest.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Run one step of both optimisers."""
        loss = None if closure is None else closure()
        self.muon.step()
        self.rest.step()
        return loss

    def taken(self) -> int:
        """Return the MACs of Muon's matrix products since the last call."""
        macs, self.muon.macs = self.muon.macs, 0
        return macs
