"""MACs and statistics of gated networks, against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from polypath.analysis.loops import loops_taken
from polypath.core.execute import Trace
from polypath.core.network import PathNet
from polypath.families.recursive import RecursiveResNet
from polypath.layers.gates import GateUnit
from polypath.profiling.cost import cost
from polypath.profiling.expected import expected_macs, loop_shares
from polypath.reproduce.gating import mean_macs, passed_and_stopped

SIZE = 8


@pytest.fixture
def net() -> PathNet:
    """A gated net whose gates split the images: the sign of a gate's input decides."""
    built = RecursiveResNet(blocks=(1, 2, 2), loops=(1, 2, 2), width=4, in_chans=1).build(seed=0)
    for module in built.modules():
        if isinstance(module, GateUnit):
            torch.nn.init.normal_(module.last.weight, std=1.0, generator=torch.Generator().manual_seed(1))
            torch.nn.init.zeros_(module.last.bias)
    return built.eval()


@pytest.fixture
def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 1, SIZE, SIZE, generator=g), torch.zeros(n, dtype=torch.long)) for n in (20, 12)]


def test_mean_macs_on_target_are_the_expected_ones(net):
    shares = loop_shares(net.wiring, 0.7)
    assert mean_macs(net, shares, SIZE) == pytest.approx(expected_macs(net, 0.7, SIZE))
    assert mean_macs(net, dict.fromkeys(shares, 1.0), SIZE) == cost(net, "whole", SIZE).macs
    assert mean_macs(net, dict.fromkeys(shares, 0.0), SIZE) < mean_macs(net, dict.fromkeys(shares, 0.5), SIZE)


def test_mean_macs_of_images_are_between_none_and_all_loops(net, images):
    gates = loops_taken(net, images).gates
    shares = {(s, k): v for s, k, v in zip(gates["switch"], gates["loop"], gates["share"], strict=True)}
    some = mean_macs(net, shares, SIZE)
    assert mean_macs(net, dict.fromkeys(shares, 0.0), SIZE) < some < mean_macs(net, dict.fromkeys(shares, 1.0), SIZE)


def test_passed_and_stopped_images_are_separated_by_the_gate(net, images):
    found = passed_and_stopped(net, images)
    block = next(iter(found))
    gate = net.wiring.joins[f"{block}.loops"].gates[0]
    x = torch.cat([x for x, _ in images])
    trace = Trace(frozenset([gate.source]))
    with torch.no_grad():
        net(x, trace=trace)
        maps = net.get_submodule(f"{block}.unit1.conv")(trace.values[gate.source]).double()
    opened = next(of for switch, label, _, of in trace.gates if switch == f"{block}.loops" and label == gate.opens) > 0
    of = found[block]
    assert (of.passed, of.stopped) == (int(opened.sum()), int((~opened).sum()))
    torch.testing.assert_close(of.mean_passed, maps[opened].mean((0, 2, 3)))
    torch.testing.assert_close(of.var_stopped, maps[~opened].var((0, 2, 3), correction=0))
    by_hand = (of.mean_passed - of.mean_stopped).abs() / ((of.var_passed + of.var_stopped) / 2).sqrt()
    assert of.discrepancy == pytest.approx(float(by_hand.mean()))
    assert of.discrepancy > 0


def test_a_block_that_passes_all_images_is_left_out_and_a_net_without_gates_refused(net, images):
    for name, module in net.named_modules():
        if name.endswith(".gate.last"):
            with torch.no_grad():
                module.weight.zero_()
                module.bias.copy_(torch.tensor([0.0, 1.0]))
    assert passed_and_stopped(net, images) == {}
    plain = RecursiveResNet(blocks=(1, 2, 2), loops=(1, 2, 2), width=4, in_chans=1, gates="none").build(seed=0)
    with pytest.raises(ValueError, match="no gate"):
        passed_and_stopped(plain, images)
