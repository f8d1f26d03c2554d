"""Gates for inference: their batch-norms are folded, and they run in a few calls with little overhead."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.fusion.draft import Draft
from polypath.layers.gates import GateUnit


def fold_gates(draft: Draft) -> None:
    """Replace every plain gate with a hidden layer by a :class:`FoldedGate`."""
    for name, gate in draft.modules.items():
        if type(gate) is GateUnit and gate.hidden is not None and type(gate.norm) is nn.BatchNorm1d:
            _fold(gate.hidden, gate.norm)
            draft.modules[name] = FoldedGate(gate.hidden, gate.last)


class FoldedGate(nn.Module):
    """A folded gate: global average pool, linear, ReLU, linear, from maps ``(N, C, H, W)`` to logits ``(N, 2)``.

    The overhead of each call matters in such a small module. So there are no inner modules, and the first product also
    does the division for the average.
    """

    def __init__(self, hidden: nn.Linear, last: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.last_weight, self.last_bias = hidden.weight, hidden.bias, last.weight, last.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:  # the sum could be too large
            z = F.linear(x.mean((2, 3)), self.weight, self.bias)
        else:
            pixels = x.shape[2] * x.shape[3]
            z = torch.addmm(self.bias, x.sum((2, 3)), self.weight.t(), alpha=1.0 / pixels)
        return F.linear(z.relu_(), self.last_weight, self.last_bias)


@torch.no_grad()
def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    bias = linear.bias.double() - norm.running_mean.double()
    linear.bias.copy_(bias * scale + norm.bias.double())
    linear.weight.copy_(linear.weight.double() * scale[:, None])
