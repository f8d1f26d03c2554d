"""Paths by ExecuTorch, in an environment that has it (docs/production.md says how to make one)."""

from __future__ import annotations

import pytest
import torch
from benchmarks import small_devices

import polypath as pp
from contracts.small import small_net

pytest.importorskip("executorch.runtime")


@pytest.mark.parametrize("name", ["fractalnet20", "crescendonet_128", "dfn_mr14", "gunn15"])
def test_a_path_lowered_to_xnnpack_answers_as_eager(name: str, rng: torch.Generator) -> None:
    net = small_net(name)
    images, labels = torch.randn(8, 3, 32, 32, generator=rng), torch.zeros(8, dtype=torch.int64)
    for text in list(net.named_paths())[:2]:
        row = small_devices.compared(pp.extract(net, text).eval(), images, labels)
        assert row["share"] <= small_devices.WITHIN
        assert row["same_top1"] == 8
        assert row["outside_xnnpack"] == []


def test_other_weights_answer_otherwise(rng: torch.Generator) -> None:
    net = pp.extract(small_net("fractalnet20"), "column=1").eval()
    image = torch.randn(1, 3, 32, 32, generator=rng)
    answer = small_devices.loaded(small_devices.lowered(net, image)[0])
    before = answer(image)
    assert not torch.allclose(before, answer(2 * image), atol=1e-3)
    assert torch.equal(before, answer(image))
