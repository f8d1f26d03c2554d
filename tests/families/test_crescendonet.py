"""CrescendoNet against its paper's text and printed sizes."""

from __future__ import annotations

import pytest
import torch

import polypath as pp
from conftest import part
from polypath.families.crescendonet import CrescendoNet


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("crescendonet_128", {}, 4_128_202),
        ("crescendonet_512", {}, 27_731_402),
        ("crescendonet_512w", {}, 18_468_296),
        ("crescendonet_128", {"bias": True}, 4_128_202 + 30 * 128),  # 4.1M too: the printed size does not decide
        ("crescendonet_512", {"bias": True}, 27_731_402 + 10 * (128 + 256 + 512)),
    ],
)
def test_parameters_to_the_digit(name, arguments, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in pp.create_model(name, **arguments).parameters()) == count


@pytest.mark.parametrize(("widths", "millions"), [((128, 128, 128), 7.08), ((128, 256, 512), 37.17)])
def test_pooling_only_between_blocks_gives_the_sizes_of_the_text(widths, millions):
    with torch.device("meta"):
        net = CrescendoNet(widths=widths, final_map=8).build()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions


def test_equation_4():
    spec = CrescendoNet(widths=(128, 256, 512), growing=True)
    assert spec.branch_widths(2, 2) == [192, 256]  # the paper's own example
    assert spec.branch_widths(2, 4) == [160, 192, 224, 256]
    assert spec.branch_widths(2, 3) == [171, 213, 256]  # to the nearest
    assert spec.branch_widths(1, 3) == [128, 128, 128]


def test_paths_and_depths():
    wiring = CrescendoNet(widths=(4, 4, 4)).build().wiring
    assert wiring.count_paths() == 4**3
    assert (wiring.shortest(), wiring.longest()) == (3, 12)
    assert sum(wiring.depth_distribution().values()) == 64
    assert wiring.depth_distribution()[4] == 3  # one block takes branch 2, the others branch 1


@pytest.mark.parametrize(("scale", "interval"), [(1, 1), (3, 2), (5, 3)])
def test_any_scale_and_interval(scale, interval):
    net = CrescendoNet(widths=(4, 6), scale=scale, interval=interval).build(seed=0)
    assert net.wiring.count_paths() == scale**2
    assert net.wiring.longest() == 2 * scale * interval
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert len(net.named_paths()) >= scale


def test_the_block_is_the_mean_of_its_branches():
    net = CrescendoNet(widths=(4,), final_map=4).build(seed=0).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    branches = []
    for n in range(1, 5):
        z = x
        for i in range(1, n + 1):
            unit = part(net, f"block1.branch{n}.unit{i}")
            z = unit.norm(torch.relu(unit.conv(z)))  # Eq. 1: conv, activation, batch-norm
        branches.append(z)
    trace = pp.Trace(nodes=frozenset({"block1.join"}))
    net(x, trace=trace)
    torch.testing.assert_close(trace.values["block1.join"], torch.stack(branches).mean(0))


def test_truncated_normal_is_the_papers_initialisation():
    net = CrescendoNet().build(seed=0)
    conv = part(net, "block2.branch1.unit1").conv.weight
    linear = part(net, "head.hidden1")[0].weight
    # a normal distribution truncated at two standard deviations has 0.88 of the original deviation
    for weight, std in ((conv, 0.05), (linear, 0.04)):
        assert weight.abs().max() <= 2 * std
        assert weight.std().item() == pytest.approx(0.88 * std, rel=0.02)


def test_same_seed_same_weights_other_seed_other_weights():
    one, same, other = (CrescendoNet(widths=(4, 4, 4)).build(seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["block1.branch1.unit1.conv.weight"], other["block1.branch1.unit1.conv.weight"])
    before = torch.random.get_rng_state()
    CrescendoNet(widths=(4, 4, 4)).build(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"widths": ()}, "at least one block"),
        ({"scale": 0}, "at least 1"),
        ({"final_map": 0}, "at least 1"),
        ({"in_chans": 0}, "at least 1"),
        ({"dropout": 1.5}, r"\[0, 1\)"),
    ],
)
def test_illegal_arguments(arguments, told):
    with pytest.raises(ValueError, match=told):
        pp.create_model("crescendonet_128", **arguments)


def test_an_unknown_model_names_the_near_ones():
    with pytest.raises(ValueError, match="crescendonet_128"):
        pp.create_model("crescendonet128")
