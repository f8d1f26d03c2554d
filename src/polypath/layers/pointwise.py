"""1×1 convs as products of matrices: what a CPU is faster at where maps lie one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PointwiseConv(nn.Conv2d):
    """A 1×1 conv of maps ``(B, N, H, W)`` to ``(B, n, H, W)``, run by :func:`pointwise` where that pays.

    On a CPU, of contiguous maps of several images, while the weights are fewer than an image's values: each image's
    part of their gradient is written on its own, and summed. ``products = False`` is the conv as torch has it.
    """

    products = True

    def __init__(self, in_chans: int, out_chans: int, *, bias: bool = False) -> None:
        super().__init__(in_chans, out_chans, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.products and x.dim() == 4 and len(x) > 1 and not torch.compiler.is_compiling():
            values = (x.shape[1] + self.out_channels) * x.shape[2] * x.shape[3]
            if self.weight.numel() <= values:
                return pointwise(x, self.weight, self.bias)
        return super().forward(x)


PLAIN_CONVS = (nn.Conv2d, PointwiseConv)
"""Convs of which weights, bias and form say all."""


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1×1 conv of maps ``(B, N, H, W)`` by weights ``(n, N, 1, 1)``."""
    if x.device.type != "cpu" or not x.is_contiguous():
        return F.conv2d(x, weight, bias)
    # a conv would copy x into another order first, and so would matmul
    maps = torch.bmm(weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])
    return maps if bias is None else maps + bias[:, None, None]
