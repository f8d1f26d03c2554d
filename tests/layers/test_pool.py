"""The adaptive max-pool equals torch's in outputs and gradients."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.filterwarnings("ignore:.*(torch.jit|legacy|dynamo=False).*")
def test_the_older_exporter_writes_it(tmp_path: Path) -> None:
    ort, _ = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    pool, x = nn.Sequential(nn.ReLU(), AdaptiveMaxPool(2)), torch.randn(1, 3, 8, 8)
    file = str(tmp_path / "pool.onnx")
    torch.onnx.export(pool, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    more = torch.randn(4, 3, 8, 8)
    (found,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": more.numpy()})
    assert torch.equal(torch.from_numpy(found), pool(more))
