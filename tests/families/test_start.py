"""Starts near the identity: parts that pass on their input before training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.gunn import Gunn
from polypath.families.resnet import ResNet
from polypath.layers.conv import ConvUnit
from polypath.layers.init import pass_through


@pytest.mark.parametrize("order", ["conv-norm-act", "conv-act-norm", "conv"])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_unit_that_passes_through_is_the_identity(order: str, side: int, rng: torch.Generator):
    unit = ConvUnit(4, 6, side, order=order).double().eval()
    drawn = unit.conv.weight.detach().clone()
    assert pass_through(unit.conv)
    for module in unit.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    x = torch.rand(2, 4, 7, 7, generator=rng, dtype=torch.float64)  # a ReLU does not change it
    assert torch.equal(unit(x)[:, :4], x)
    assert torch.equal(unit.conv.weight[4:], drawn[4:])


@pytest.mark.parametrize(
    "options", [{"out_chans": 3}, {"stride": 2}, {"groups": 2}, {"kernel_size": 2}], ids=lambda o: next(iter(o))
)
def test_convs_that_cannot_pass_through_keep_their_weights(options: dict[str, Any]):
    conv = ConvUnit(**{"in_chans": 4, "out_chans": 4, **options}).conv
    drawn = conv.weight.detach().clone()
    assert not pass_through(conv)
    assert torch.equal(conv.weight, drawn)


@pytest.mark.parametrize("family", [FractalNet(filters=(4, 8), columns=3), CrescendoNet(widths=(4, 4), scale=3)])
def test_columns_and_branches_give_the_same_maps(family: Family, rng: torch.Generator):
    """At the joins of the first two blocks all operands are equal: the block's input, and zeros for added channels."""
    net = dataclasses.replace(family, start="identity").build(0).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
        if isinstance(module, nn.Conv2d):
            module.weight.data[module.in_channels :] = 0  # the drawn weights beside the Dirac filters
    x = torch.rand(2, 3, 8, 8, generator=rng, dtype=torch.float64)
    answers = [net(x), *(net(x, paths=path) for path in net.path_names)]
    assert len(answers) > 2
    assert all(torch.allclose(answer, answers[0], atol=1e-12) for answer in answers)
    drawn = family.build(0).double().eval()
    assert not torch.allclose(drawn(x), drawn(x, paths=net.path_names[-1]))


def test_residual_branches_add_nothing(rng: torch.Generator):
    for block in ("basic", "bottleneck"):
        spec = ResNet(blocks=(2, 2), width=4, block=block, start="identity")
        net, x = spec.build(0).double().eval(), torch.rand(2, 3, 8, 8, generator=rng, dtype=torch.float64)
        assert torch.equal(net(x), net(x, paths="route=LLLL"))
        other = dataclasses.replace(spec, start="drawn").build(0).double().eval()
        assert not torch.allclose(other(x), other(x, paths="route=LLLL"))


def test_a_start_that_a_family_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"Gunn\.start = 'identity': must be one of drawn"):
        Gunn(start="identity")
    with pytest.raises(ValueError, match=r"FractalNet\.start = 'dirac': must be one of drawn, identity"):
        FractalNet(start="dirac")
