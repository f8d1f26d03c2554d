"""1×1 convs with a stride: select the pixels first, then run the conv."""

from __future__ import annotations

import copy

import pytest
import torch

from conftest import assert_close, gradient
from polypath.layers.conv import ConvUnit
from polypath.layers.pointwise import PointwiseConv


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("in_chans", [1, 3, 4, 5, 7])
def test_strided_convs_of_few_maps_have_right_gradients(in_chans, layout, rng):
    """In channels-last, torch's conv wrote beyond the memory of the weights' gradient and crashed after some steps."""
    unit = ConvUnit(in_chans, 8, 1, stride=2, order="conv")
    reference = copy.deepcopy(unit).double()
    conv = reference.conv
    assert isinstance(unit.conv, PointwiseConv)
    assert isinstance(conv, PointwiseConv)
    conv.products = False  # torch's own, in float64 and its own layout
    unit = unit.to(memory_format=layout)
    x = torch.randn(3, in_chans, 7, 6, generator=rng).to(memory_format=layout).requires_grad_()
    y = x.detach().double().contiguous().requires_grad_()
    out, wanted = unit(x), reference(y)
    assert_close(out.double(), wanted)
    given = torch.randn(out.shape, generator=rng)
    out.backward(given)
    wanted.backward(given.double())
    assert_close(gradient(x).double(), gradient(y))
    assert_close(gradient(unit.conv.weight).double(), gradient(conv.weight))


def test_compiled_convs_also_select_their_pixels_first():
    recorded: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        recorded.append(graph)
        return graph.forward

    torch.compiler.reset()  # compiled units of other tests count towards the same limit
    unit = ConvUnit(4, 8, 1, stride=2, order="conv")
    x = torch.randn(2, 4, 6, 6)
    compiled = torch.compile(unit, backend=backend, fullgraph=True)
    assert_close(compiled(x), unit(x))
    (call,) = [node for node in recorded[0].graph.nodes if "conv2d" in str(node.target)]
    assert call.meta["example_value"].shape == (2, 8, 3, 3)
    assert call.args[0].meta["example_value"].shape == (2, 4, 3, 3)


def test_with_many_maps_a_strided_conv_is_torchs():
    assert not isinstance(ConvUnit(8, 8, 1, stride=2).conv, PointwiseConv)
