"""Fold the batch-norms of gates into the linear layers before them."""

from __future__ import annotations

import torch
from torch import nn

from polypath.fusion.draft import Draft
from polypath.layers.gates import GateUnit


def fold_gates(draft: Draft) -> None:
    """Leave plain gates pool, linear, ReLU, linear."""
    for gate in draft.modules.values():
        if type(gate) is GateUnit and gate.hidden is not None and type(gate.norm) is nn.BatchNorm1d:
            _fold(gate.hidden, gate.norm)
            gate.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    bias = linear.bias.double() - norm.running_mean.double()
    linear.bias.copy_(bias * scale + norm.bias.double())
    linear.weight.copy_(linear.weight.double() * scale[:, None])
