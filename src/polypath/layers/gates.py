"""Gates (DRNN §3, after ConvNet-AIG), which decide whether a sample runs the next loop.

A gate computes two logits for each sample, for closed and open. In training, Gumbel noise makes the decision random,
with a straight-through gradient. In evaluation, the larger logit decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from polypath.core.checks import check, number, one_of, whole
from polypath.layers.lvbn import STATISTICS, normalise

LAST_STD = 0.001
SHUT_BIAS = 0.1  # as in ConvNet-AIG


class GateUnit(nn.Module):
    """A gate: global average pool, linear layer to ``hidden``, batch-norm, ReLU, linear layer to 2 (closed, open).

    It computes logits ``(N, 2)`` from maps ``(N, C, H, W)``. All loops of a block use the same gate.

    Args:
        hidden: d, the size of the hidden layer; 0 omits this layer (DR-MobileNetV2).
        open_share: initial share of the samples that pass.
        statistics: which samples give the batch-norm statistics in training, see
            :func:`~polypath.layers.lvbn.normalise`.

    Raises:
        ValueError: a share that is not between 0 and 1, a negative ``hidden``.
    """

    takes_mask = True

    def __init__(self, chans: int, hidden: int = 16, *, open_share: float = 0.85, statistics: str = "passed") -> None:
        super().__init__()
        check("hidden", hidden, whole(0))
        check("open_share", open_share, number(above=0, below=1))
        check("statistics", statistics, one_of(*STATISTICS))
        self.statistics, self.open_share = statistics, open_share
        if hidden:
            self.hidden = nn.Linear(chans, hidden)
            self.norm = nn.BatchNorm1d(hidden)
        else:
            self.hidden = None
        self.last = nn.Linear(hidden or chans, 2)
        self.reset_last()

    def reset_last(self) -> None:
        """Draw the last layer's weights from N(0, 0.001²).

        The biases are set so that a share ``open_share`` of the samples passes.
        """
        nn.init.normal_(self.last.weight, std=LAST_STD)
        with torch.no_grad():
            odds = math.log(self.open_share / (1.0 - self.open_share))
            self.last.bias.copy_(self.last.bias.new_tensor([SHUT_BIAS, SHUT_BIAS + odds]))

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        z = x.mean((2, 3))
        if self.hidden is not None:
            z = normalise(self.norm, self.hidden(z), mask, self.statistics, training=self.training).relu()
        return self.last(z)
