"""GUNN and SUNN as networks, against their paper's tables and printed sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import polypath as pp
from conftest import assert_close, randomise_norms
from polypath.families.gunn import PRESETS, Gunn

TINY = Gunn(channels=(8, 12), segments=(2, 3), stem_width=4, last_width=8, num_classes=5)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("gunn15", 10, 1_585_746),
        ("gunn15", 100, 1_618_236),
        ("gunn15_nores", 10, 1_585_746),
        ("gunn24", 10, 29_534_106),
        ("gunn24", 100, 29_631_396),
        ("gunn18_imagenet", 1000, 28_909_736),
        ("wide_gunn18_imagenet", 1000, 45_624_936),
    ],
)
def test_parameters_to_the_digit(name, classes, count):
    with torch.device("meta"):
        nets = [pp.create_model(name, num_classes=classes)]
        if classes != 100 and not name.endswith("nores"):
            nets.append(pp.create_model(name.replace("gunn", "sunn"), num_classes=classes))
    for net in nets:
        assert sum(p.numel() for p in net.parameters()) == count


def test_the_parallel_convs_are_what_the_printed_counts_need():
    with torch.device("meta"):
        net = pp.create_model("gunn15", parallel=False)
    assert sum(p.numel() for p in net.parameters()) == 1_306_746


@pytest.mark.parametrize(
    ("name", "depth", "chain"),
    [("gunn15", 15, 231), ("gunn24", 24, 456), ("gunn18_imagenet", 18, 366), ("wide_gunn18_imagenet", 18, 516)],
)
def test_depth_is_the_papers_and_the_chain_through_all_segments_is_deeper(name, depth, chain):
    spec, before = PRESETS[name].spec, PRESETS[name.replace("gunn", "sunn")].spec
    assert isinstance(spec, Gunn)
    assert isinstance(before, Gunn)
    with torch.device("meta"):
        wiring = spec.build().wiring
    assert wiring.count_paths() == 1
    assert wiring.longest() == depth == PRESETS[name].printed["depth"]
    assert spec.chain_depth == chain
    assert before.chain_depth == depth


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("transition", ["conv-pool", "pool-conv"])
def test_the_stages_are_the_tables(stem, transition):
    spec = replace(TINY, channels=(8, 8, 12), segments=(2, 2, 3), stem=stem, transition=transition)
    net = spec.build(seed=0).eval()
    stages = {n.name: i for i, n in enumerate(net.wiring.nodes)}
    assert (stages["trans1.unit1"] < stages["trans1.pool"]) == (transition == "conv-pool")
    seen = pp.Trace(nodes=frozenset({"conv2", "conv3", "conv4"}))
    net(torch.randn(1, 3, 64, 64), trace=seen)
    plain = replace(spec, transition="conv-pool").build()
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in plain.parameters())
    first = 64 if stem == "cifar" else 16  # conv and max-pool of stride 2 each
    assert [v.shape[-1] for v in seen.values.values()] == [first, first // 2, first // 4]
    assert net(torch.randn(2, 3, net.min_size, net.min_size)).shape == (2, 5)
    with pytest.raises((ValueError, RuntimeError)):
        net(torch.randn(2, 3, net.min_size - 1, net.min_size - 1))


def test_gunn_and_sunn_have_the_same_weights_and_macs():
    counts, keys = [], []
    for order in ("gradual", "simultaneous"):
        for backward in ("reference", "algorithm1"):
            net = replace(TINY, order=order, backward=backward).build(seed=0).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                net(torch.randn(1, 3, 8, 8))
            counts.append(counter.get_total_flops())
            keys.append({k: v.shape for k, v in net.state_dict().items()})
    assert counts == counts[:1] * 4
    assert counts[0] > 0
    assert keys == keys[:1] * 4


@pytest.mark.parametrize("order", ["gradual", pytest.param("simultaneous", marks=pytest.mark.slow)])
def test_compiled_and_exported(order):
    net = replace(TINY, order=order).build(seed=0)
    randomise_norms(net)
    net.eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = net(x)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
        exported = torch.export.export(net, (x,)).module()(x)
    assert_close(compiled, expected)
    assert_close(exported, expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"segments": (7, 25, 30)},
            r"layer 1: segments P = 7 .* N = 240 .* nearest legal P are 6 and 8.*N may be 238 or 245",
        ),
        ({"segments": (20, 0, 30)}, "layer 2: segments P = 0 .* nearest legal P are 1 and 2"),
        ({"segments": (20, 301, 30)}, "layer 2: segments P = 301 .* nearest legal P are 150 and 300"),
        ({"segments": (20, 25)}, "3 entries"),
        ({"channels": (), "segments": ()}, "at least one layer"),
        ({"channels": (0, 300, 360)}, "at least 1"),
        ({"expansion": (2, 2)}, "one entry, or 3"),
        ({"stacked": (0,)}, "at least 1"),
        ({"order": "random"}, "gradual, simultaneous"),
        ({"stem": "mnist"}, "cifar, imagenet"),
        ({"transition": "pool"}, "conv-pool, pool-conv"),
        ({"backward": "fast"}, "algorithm1, reference"),
    ],
)
def test_illegal_arguments(arguments, told):
    with pytest.raises(ValueError, match=told):
        pp.create_model("gunn15", **arguments)
