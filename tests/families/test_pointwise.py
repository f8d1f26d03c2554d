"""1×1 convs as matrix products: the same outputs and gradients as torch's conv, and where they are used."""

from __future__ import annotations

import copy

import pytest
import torch

from polypath.layers.conv import ConvUnit
from polypath.layers.pointwise import PointwiseConv


def conv(in_chans: int = 6, out_chans: int = 4, *, bias: bool = True) -> PointwiseConv:
    torch.manual_seed(0)
    return PointwiseConv(in_chans, out_chans, bias=bias).double()


def maps(batch: int = 3, chans: int = 6, side: int = 5) -> torch.Tensor:
    return torch.randn(batch, chans, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def runs_products(made: PointwiseConv, x: torch.Tensor) -> bool:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        made(x)
    return any(event.key == "aten::bmm" for event in seen.key_averages())


@pytest.mark.parametrize("bias", [True, False])
def test_it_answers_and_learns_as_the_conv_does(bias):
    fast = conv(bias=bias)
    plain = copy.deepcopy(fast)
    plain.products = False
    given, grads = torch.randn(3, 4, 5, 5, dtype=torch.float64), []
    for made in (fast, plain):
        x = maps().requires_grad_()
        y = made(x)
        (gx,) = torch.autograd.grad(y, x, given, create_graph=True)
        (gx.square().sum() + y.square().sum()).backward()  # a second-order gradient too
        grads.append([y.detach(), gx.detach(), x.grad, *(p.grad for p in made.parameters())])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_products_run_where_they_are_faster():
    assert runs_products(conv(), maps())
    assert not runs_products(conv(), maps().to(memory_format=torch.channels_last))
    assert not runs_products(conv(), maps(batch=1))
    assert not runs_products(conv(40, 40), maps(chans=40, side=2))  # more weights than an image has values
    switched = conv()
    switched.products = False
    assert not runs_products(switched, maps())


def test_only_plain_1x1_units_have_one():
    assert type(ConvUnit(6, 4, 1).conv) is PointwiseConv
    for other in (ConvUnit(8, 4, 1, stride=2), ConvUnit(6, 4, 3), ConvUnit(6, 4, 1, groups=2)):
        assert type(other.conv) is torch.nn.Conv2d
    assert conv()(maps(batch=0)).shape == (0, 4, 5, 5)
    assert conv()(maps()[0]).shape == (4, 5, 5)


def test_it_compiles_and_exports_as_a_conv():
    program = torch.export.export(ConvUnit(6, 4, 1).eval(), (maps().float(),))
    called = {str(node.target) for node in program.graph.nodes}
    assert any("conv2d" in name for name in called)
    assert not any("bmm" in name for name in called)
