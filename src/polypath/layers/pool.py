"""A max-pool to maps of a given size that every version of torch can write as ONNX."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class AdaptiveMaxPool(nn.AdaptiveMaxPool2d):
    """``nn.AdaptiveMaxPool2d``, as the ordinary max-pool that it is where the map divides evenly.

    Only the ordinary one has an operator in ONNX.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to ``(N, C, side, side)``."""
        side, (height, width) = self.output_size, input.shape[-2:]
        assert isinstance(side, int)
        if height % side or width % side:
            return cast(Tensor, super().forward(input))
        return torch.max_pool2d(input, (height // side, width // side))
