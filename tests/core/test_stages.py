"""Stages of a small network: their names, their values, and the nodes that run for them."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import polypath as pp
from contracts.gated import undecided
from polypath.core.stages import chosen_indices


class Times(nn.Module):
    """``factor`` times the input, at half of its size if ``stride`` is 2."""

    def __init__(self, factor: float, stride: int = 1):
        super().__init__()
        self.factor, self.stride = nn.Parameter(torch.tensor(factor)), stride

    def forward(self, x):
        return self.factor * x[:, :, :: self.stride, :: self.stride]


def drawn(*, head: bool = True) -> Any:
    """Two streams that meet at the end: the first stage is their mean, the second a join, the third a unit."""
    b = pp.NetBuilder()
    for s, factor in (("1", 2.0), ("2", 4.0)):
        b.stage(b.add(f"low{s}", b.input, Times(factor)), "low")
        b.add(f"high{s}", f"low{s}", Times(3.0, 2))
    z = b.stage(b.join("meet", {"1": "high1", "2": "high2"}))
    z = b.stage(b.add("last", z, Times(5.0, 2)))
    if head:
        z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        z = b.add("head.classifier", z, nn.Linear(3, 7))
    return b.net(z).eval()


IMAGES = torch.ones(2, 3, 8, 8)


def means(maps) -> list[float]:
    return [float(m.detach().mean()) for m in maps]


def watched(net) -> Counter[str]:
    """How often each node runs from here on."""
    ran: Counter[str] = Counter()
    for node in net.wiring.by_name:
        net.register_node_hook(node, lambda name, _: ran.update([name]))
    return ran


def test_a_stage_is_the_mean_of_its_nodes_that_are_alive():
    net = drawn()
    features, maps = net.forward_intermediates(IMAGES)
    assert means(maps) == [3.0, 9.0, 45.0]
    assert torch.equal(features, net.forward_features(IMAGES))
    assert means(net.forward_intermediates(IMAGES, intermediates_only=True, paths="meet=2")) == [4.0, 12.0, 60.0]
    assert means(net.forward_intermediates(IMAGES, intermediates_only=True, paths=net.paths("meet=1"))) == [2, 6, 30]


def test_stages_are_described_in_timms_format():
    net = drawn()
    assert net.feature_info == [
        {"num_chs": 3, "reduction": 1, "module": "low", "index": 0},
        {"num_chs": 3, "reduction": 2, "module": "meet", "index": 1},
        {"num_chs": 3, "reduction": 4, "module": "last", "index": 2},
    ]
    net.feature_info[0]["num_chs"] = 0  # a caller's copy
    assert net.feature_info[0]["num_chs"] == 3
    assert net.stage_nodes == {"low": ("low1", "low2"), "meet": ("meet",), "last": ("last",)}


def test_extraction_keeps_the_names_of_stages_but_not_of_nodes():
    net = drawn()
    child = pp.extract(net, "meet=2")
    assert child.stage_nodes == {"low": ("low2",), "meet": ("high2",), "last": ("last",)}
    assert child.feature_info == net.feature_info
    expected = net.forward_intermediates(IMAGES, paths="meet=2")[1]
    for found, wanted in zip(child.forward_intermediates(IMAGES)[1], expected, strict=True):
        assert torch.equal(found, wanted)
    again = pp.extract(child, "whole")
    assert again.stage_nodes == child.stage_nodes
    assert copy.deepcopy(child).feature_info == child.feature_info


def test_a_stage_can_be_the_image_itself():
    b = pp.NetBuilder()
    z = b.stage(b.join("first", {"L": b.input, "R": b.add("unit", b.input, Times(2.0))}, "sum"))
    net = b.net(b.stage(b.add("last", z, Times(3.0, 2))))
    child = pp.extract(net, "first=L")
    assert child.stage_nodes["first"] == ("input",)
    assert means(child.forward_intermediates(IMAGES)[1]) == [1.0, 3.0]
    assert means(net.forward_intermediates(IMAGES, paths="first=L")[1]) == [1.0, 3.0]
    assert means(net.forward_intermediates(IMAGES, [0], paths="first=L", intermediates_only=True)) == [1.0]


@pytest.mark.parametrize("head", [True, False])
def test_only_requested_stages_run(head):
    net = drawn(head=head)
    ran = watched(net)
    body = {"low1", "low2", "high1", "high2", "meet", "last"}
    for options, expected in [
        ({}, body),
        ({"indices": [0]}, body),  # the maps of forward_features are returned as well
        ({"indices": [0], "stop_early": True}, {"low1", "low2"}),
        ({"indices": [0], "intermediates_only": True}, {"low1", "low2"}),
        ({"indices": [1], "stop_early": True, "paths": "meet=1"}, {"low1", "high1", "meet"}),
        ({"indices": [0, 1], "intermediates_only": True, "paths": "meet=2"}, {"low2", "high2", "meet"}),
        ({"indices": [0, 2], "paths": "meet=2"}, {"low2", "high2", "meet", "last"}),
    ]:
        ran.clear()
        net.forward_intermediates(IMAGES, **options)
        assert ran == dict.fromkeys(expected, 1), options


def test_with_stop_early_the_first_result_is_the_last_stage():
    net = drawn()
    features, maps = net.forward_intermediates(IMAGES, indices=(0, 1), stop_early=True)
    assert torch.equal(features, maps[-1])
    assert means(maps) == [3.0, 9.0]


def test_intermediates_have_gradients_and_fill_the_trace():
    net = drawn()
    trace = pp.Trace(nodes=frozenset({"low1", "low2"}))
    maps = net.forward_intermediates(IMAGES, [0, 1], intermediates_only=True, trace=trace)
    assert torch.equal(maps[0], (trace.values["low1"] + trace.values["low2"]) / 2)
    maps[0].sum().backward()
    assert {key for key, p in net.named_parameters() if p.grad is not None} == {"low1.factor", "low2.factor"}


@pytest.mark.parametrize(
    ("indices", "expected"), [(None, [0, 1, 2]), (1, [2]), (3, [0, 1, 2]), ([-1, 0, 2], [0, 2]), (range(1, 3), [1, 2])]
)
def test_indices_work_as_in_timm(indices, expected):
    assert chosen_indices(indices, 3) == expected


@pytest.mark.parametrize("indices", [0, 4, -1, [3], [-4], [], "0", [True], [0.5], True])
def test_indices_that_no_stage_has(indices):
    with pytest.raises(ValueError, match=r"indices = .* from 1 to 3, or a list of stages from -3 to 2"):
        chosen_indices(indices, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indices": [3]}, r"indices = \[3\]"),
        ({"output_fmt": "NHWC"}, "output_fmt = 'NHWC': must be one of NCHW"),
        ({"paths": "meet=3"}, "meet"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        drawn().forward_intermediates(IMAGES, **options)
    with pytest.raises(ValueError, match=r"must have shape \(N, C, H, W\)"):
        drawn().forward_intermediates(IMAGES[0])


def test_impossible_stages_are_refused():
    def net(*stages: str) -> pp.PathNet:
        b = pp.NetBuilder()
        z = b.add("stem", b.input, Times(1.0))
        z = b.join("sum", {"L": z, "R": b.add("branch", z, Times(2.0))}, "sum")
        for stage in stages:
            b.stage(stage)
        return b.net(z)

    assert list(net("stem", "sum").stage_nodes) == ["stem", "sum"]
    with pytest.raises(ValueError, match="stage 'branch': some paths do not go through branch"):
        net("branch")
    with pytest.raises(ValueError, match=r"stage 'bramch': this wiring has no node 'bramch'; did you mean branch\?"):
        net("bramch")
    with pytest.raises(ValueError, match="stage 'stem' ends before the previous stage"):
        net("sum", "stem")
    with pytest.raises(ValueError, match=r"has no stages.*NetBuilder\.stage"):
        net().forward_intermediates(IMAGES)
    assert net().feature_info == []


def test_a_fused_network_keeps_no_stages():
    """Folded means make values larger and ReLUs overwrite joins, so its nodes have other values."""
    fused = pp.fuse(pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), seed=0).eval())
    assert fused.feature_info == []
    with pytest.raises(ValueError, match="fusing a network removes them"):
        fused.forward_intermediates(torch.zeros(1, 3, 8, 8))
    assert fused.forward_features(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 4, 4)


def test_modules_that_stages_do_not_need_can_be_pruned():
    net = drawn()
    whole = net.forward_intermediates(IMAGES)[1]
    alone = net.forward_intermediates(IMAGES, [0, 1], intermediates_only=True, paths="meet=2")
    assert net.prune_intermediate_layers((0, -2)) == [0, 1]
    assert set(net.state_dict()) == {f"{part}{s}.factor" for part in ("low", "high") for s in "12"}
    assert means(net.forward_intermediates(IMAGES, [0, 1], stop_early=True)[1]) == means(whole[:2])
    assert means(net.forward_intermediates(IMAGES, [0, 1], intermediates_only=True, paths="meet=2")) == means(alone)
    assert [info["module"] for info in net.feature_info] == ["low", "meet", "last"]
    assert (net.num_classes, net.num_features) == (0, 3)
    for call in (lambda: net(IMAGES), lambda: net.forward_intermediates(IMAGES)):
        with pytest.raises(ValueError, match="'last' was pruned; this network only computes intermediates"):
            call()
    with pytest.raises(ValueError, match="indices"):
        net.prune_intermediate_layers([3])
    kept = drawn()
    assert kept.prune_intermediate_layers(1, prune_head=False) == [2]
    assert kept(IMAGES).shape == (2, 7)


def test_a_pruned_network_is_not_saved(tmp_path):
    net = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), seed=0)
    net.prune_intermediate_layers([0])
    with pytest.raises(ValueError, match="block2"):
        pp.save(net, tmp_path / "net")
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("name", ["dr_resnet_small", "aig_resnet50_imagenet"])
def test_with_gates_every_sample_has_its_value(name):
    net, x = undecided(name)
    with torch.inference_mode():
        trace = pp.Trace()
        features, maps = net.forward_intermediates(x, trace=trace)
        assert 0 < sum(float(opened.sum()) for *_, opened in trace.gates) < len(x) * len(trace.gates)
        assert torch.equal(features, net.forward_features(x))
        for i in (0, 7):
            for alone, together in zip(net.forward_intermediates(x[i : i + 1])[1], maps, strict=True):
                assert together.shape[0] == len(x)
                torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
