"""The tandem expansion: the same output, all component networks, and no change if it is expanded again."""

from __future__ import annotations

import itertools

import pytest
import torch

import polypath as pp
from conftest import randomise_norms
from polypath.core.expansion import expand, tandem
from polypath.core.wiring import Join, Operand, Unit, Wiring
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.fusenet import FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.resnet import ResNet

NETS = {
    "nf3": FusedNet(depth=8, width=4),
    "nf3 max": FusedNet(depth=8, width=4, join="max"),
    "nf3 concat": FusedNet(depth=8, width=4, join="concat"),
    "nf3 survival": FusedNet(depth=8, width=4, survival=0.5),
    "nf6": FusedNet(depth=14, fusions=6, width=4),
    "resnet20": ResNet(depth=20, width=4),
    "dfn_il": InceptionLike(depth=8, width=4),
    "crescendonet": CrescendoNet(widths=(4, 4, 4), hidden=(8,)),
    "plain": PlainNet(depth=8, width=4),
}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def built(name: str) -> pp.PathNet:
    net = NETS[name].build(seed=0).double()
    randomise_norms(net)
    return net.eval()


@pytest.mark.parametrize("name", NETS)
def test_the_expansion_gives_the_fused_nets_output(name):
    net = built(name)
    twin = tandem(net).eval()
    with torch.inference_mode():
        expected = net(IMAGES)
        torch.testing.assert_close(twin(IMAGES), expected, rtol=1e-12, atol=1e-12)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in net.parameters()}  # shared, not copied
    assert twin.state_dict().keys() == net.state_dict().keys()


def test_it_is_exact_in_exact_arithmetic():
    net, x = built("nf6"), IMAGES
    with torch.inference_mode():
        expected, other = net(x), net(x, paths="fusion3.join=L")
        torch.testing.assert_close(tandem(net).eval()(x), expected, rtol=1e-13, atol=1e-13)
    assert not torch.allclose(other, expected, rtol=1e-3)


def test_nf3s_expansion_is_figure_1b():
    net = built("nf3")
    wiring = expand(net.wiring)
    names = ["".join(c) for c in itertools.product("LR", repeat=3)]
    for name in names:  # every chain has its K blocks, one after the other only through the exchange
        own = [n for n in wiring.nodes if isinstance(n, Unit) and n.name.startswith(f"chains.{name}.")]
        heads = [n for n in own if n.name.endswith(".unit1")]
        assert [n.module.split(".")[1] for n in heads] == list(name)
        assert [n.source for n in heads] == ["stem.unit", "fusion1.relu", "fusion2.relu"]  # all read z_{k-1}
        assert len(own) == sum(2 if side == "R" else 1 for side in name)  # x = 2 layers deep, 1 shallow
    blocks = [o for j in wiring.joins.values() if j.kind == "mean" for o in j.operands]
    assert len(blocks) == len({o.source for o in blocks}) == 3 * 2**3  # K·2^K
    for k in (1, 2, 3):
        for side in "LR":
            assert wiring.joins[f"fusion{k}.join.{side}"].labels == tuple(n for n in names if n[k - 1] == side)
        assert wiring.joins[f"fusion{k}.join"].kind == "sum"
    assert set(wiring.modules) == set(net.wiring.modules)


@pytest.mark.parametrize("fusions", [3, 5, 6])
def test_k_times_two_to_the_k_blocks(fusions):
    wiring = expand(FusedNet(depth=2 + fusions, fusions=fusions, width=2).build().wiring)
    blocks = [o for j in wiring.joins.values() if j.kind == "mean" for o in j.operands]
    assert len(blocks) == fusions * 2**fusions


def test_the_component_networks_are_the_fused_nets_routes():
    net = built("nf3")
    twin = tandem(net).eval()
    for route in ("LLL", "RLR", "RRR"):
        alone = {f"fusion{k}.join": [side] for k, side in enumerate(route, 1)}
        alone |= {f"fusion{k}.join.{side}": [route] for k, side in enumerate(route, 1)}
        paths = pp.Paths.of(twin.wiring, alone)
        assert twin.wiring.depth_distribution(paths) == net.wiring.depth_distribution(net.paths(f"route={route}"))
        torch.testing.assert_close(twin(IMAGES, paths=paths), net(IMAGES, paths=f"route={route}"))
    assert not torch.allclose(net(IMAGES, paths="route=RLR"), net(IMAGES, paths="route=RRR"))


@pytest.mark.parametrize("name", [n for n in NETS if n != "plain"])
def test_expanding_again_changes_nothing(name):
    once = expand(built(name).wiring)
    assert expand(once) == once
    assert once != built(name).wiring


def test_a_net_without_fusions_is_its_own_expansion():
    wiring = built("plain").wiring
    assert expand(wiring) == wiring


def test_with_duplicates_the_second_expansion_has_all_chains_and_without_it_is_the_first():
    net = built("nf3")
    once = expand(net.wiring)
    assert once.count_paths() == 8**3
    assert expand(net.wiring, duplicates=True) == once  # the first expansion has none
    twice = expand(once, duplicates=True)
    chains = {n.name.split(".")[1] for n in twice.nodes if n.name.startswith("chains.")}
    assert len(chains) == 8**3
    assert "LLL_RLR_RRR" in chains
    assert len({tuple(path.split("_")[k][k] for k in range(3)) for path in chains}) == 8  # distinct ones
    assert expand(twice) == once
    run = pp.PathNet(twice, {path: net.get_submodule(path) for path in twice.modules}).eval()
    torch.testing.assert_close(run(IMAGES), net(IMAGES), rtol=1e-12, atol=1e-12)


def test_training_through_the_expansion_has_the_fused_nets_gradients():
    net = built("nf3")
    grads = []
    for one in (net, tandem(net).eval()):
        net.zero_grad()
        one(IMAGES).square().sum().backward()
        grads.append({key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() == dict(net.named_parameters()).keys()
    for key, grad in grads[0].items():
        torch.testing.assert_close(grads[1][key], grad, rtol=1e-9, atol=1e-9)
    assert any(grad.abs().max() > 1e-3 for grad in grads[0].values())


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (MergeAndRun(depth=10, width=4), "a series of fusions"),
        (FractalNet(filters=(4, 4), columns=3), "a series of fusions"),
        (FractalNet(filters=(4, 4), columns=2, own_norms=True), "switch"),
        (ResNet(depth=26, width=4), "= 4096 chains: the limit is 1024"),
        (FusedNet(depth=13, fusions=11, width=4), "= 2048 chains"),
    ],
)
def test_what_cannot_be_expanded_is_refused(spec, told):
    wiring = spec.build().wiring
    with pytest.raises(ValueError, match=told):
        expand(wiring)


def test_a_mean_of_different_blocks_is_no_expansion():
    units = (Unit("a", "input", "a", 1), Unit("b", "input", "b", 1))
    inner = Join("inner", "mean", (Operand("a", "1"), Operand("b", "2")))
    outer = Join("z", "sum", (Operand("inner", "L"), Operand("input", "R")))
    with pytest.raises(ValueError, match="mean of different blocks"):
        expand(Wiring((*units, inner, outer), "z"))
