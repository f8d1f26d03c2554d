"""A max-pool to maps of a given size. Every version of torch can export it to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.recording import symbolic, tracing


class AdaptiveMaxPool(nn.AdaptiveMaxPool2d):
    """An ``nn.AdaptiveMaxPool2d`` that runs as an equivalent ordinary max-pool if the map's sides divide evenly.

    ONNX has an operator only for the ordinary max-pool. torch's older exporter, which traces, converts the pool itself.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool maps ``(N, C, H, W)`` to ``(N, C, side, side)``."""
        side = self.output_size
        assert isinstance(side, int)
        if symbolic(input) or tracing():
            return F.adaptive_max_pool2d(input, side)
        height, width = input.shape[-2:]
        if height % side or width % side:
            return F.adaptive_max_pool2d(input, side)
        return torch.max_pool2d(input, (height // side, width // side))
