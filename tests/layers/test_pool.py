"""The adaptive max-pool equals torch's in outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polypath.layers.pool import AdaptiveMaxPool


@pytest.mark.parametrize(("side", "size"), [(1, 7), (2, 8), (2, 7), (3, 8), (4, 4), (5, 3)])
def test_it_equals_torchs(side: int, size: int) -> None:
    x = torch.randint(4, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).double()  # with ties
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    answer, wanted = AdaptiveMaxPool(side)(mine), nn.AdaptiveMaxPool2d(side)(other)
    assert torch.equal(answer, wanted)
    weight = torch.randn(wanted.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    (answer * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert mine.grad is not None
    assert other.grad is not None
    assert torch.equal(mine.grad, other.grad)
