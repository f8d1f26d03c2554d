"""Recursive nets against their paper's text and printed sizes, and against the nets that they are built from."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polypath as pp
from conftest import assert_close, gradient, part, randomise_norms
from polypath.families.inverted import RecursiveMobileNetV2
from polypath.families.recursive import PadShortcut, RecursiveResNet, recursive_blocks
from polypath.families.registry import get_preset
from polypath.families.resnet import ResNet
from polypath.layers.gates import GateUnit
from polypath.layers.lvbn import LoopUnit
from polypath.profiling.cost import macs_by_node
from polypath.profiling.expected import expected_loops, expected_macs

IMAGENET = {65: (28.12, 5.49), 53: (23.60, 4.92), 47: (21.34, 4.56), 44: (20.21, 4.25), 35: (17.61, 3.12)}
CIFAR = {74: (0.92, 2, 18), 66: (0.73, 3, 18), 58: (0.55, 4, 18), 54: (0.45, 5, 18), 40: (0.50, 2, 9), 32: (0.31, 4, 9),
         16: (0.18, 2, 3)}  # fmt: skip


@functools.cache
def built(name: str, **fields) -> pp.PathNet:
    """A registered net with other fields, on the meta device."""
    with torch.device("meta"):
        return replace(get_preset(name).spec, **fields).build()


@functools.cache
def macs(net: pp.PathNet, size: int) -> int:
    return sum(macs_by_node(net, None, size).values())


def millions(net: nn.Module) -> float:
    return sum(p.numel() for p in net.parameters()) / 1e6


# --- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", IMAGENET)
def test_imagenet_sizes(depth):
    printed, name = IMAGENET[depth][0], f"dr_resnet{depth}_imagenet"
    assert abs(millions(built(name)) - printed) < 0.1
    assert abs(millions(built(name, gates="all")) - printed) < 0.02
    assert abs(millions(built(name, gates="all", norm="shared")) - printed) > 0.02  # loops have their own norms
    assert get_preset(name).printed["params"] == printed


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_sizes(depth):
    printed, loops, n = CIFAR[depth]
    net = built(f"dr_resnet{depth}_cifar", gates="all")
    assert abs(millions(net) - printed) <= max(0.03 * printed, 0.005)
    spec = get_preset(f"dr_resnet{depth}_cifar").spec
    assert isinstance(spec, RecursiveResNet)
    assert spec.loops == (1, loops, loops)
    blocks = recursive_blocks(n, loops) + (depth == 66)  # §4.1; 66 layers and 0.73M need one more
    assert spec.blocks == (n, blocks, blocks)


def test_parameters_to_the_digit():
    counts = {
        "dr_resnet53_imagenet": 23_526_072,
        "r_resnet53_imagenet": 23_328_808,
        "r_resnet53_lvbn_imagenet": 23_377_960,
        "dr_resnet54_cifar": 442_054,
        "dr_mobilenetv2": 2_954_736,
        "mobilenetv2_base": 3_504_872,
    }
    assert {name: round(millions(built(name)) * 1e6) for name in counts} == counts


@pytest.mark.parametrize("name", [f"dr_resnet{d}_imagenet" for d in IMAGENET] + [f"dr_resnet{d}_cifar" for d in CIFAR])
def test_depth_counts_every_layer_once(name):
    net = built(name)
    depth = int(name.removeprefix("dr_resnet").split("_")[0])
    assert net.wiring.longest(net.paths("loops=1")) == depth
    assert net.wiring.longest(net.paths("loops=max")) > depth


UNGATED = {
    "r_resnet53_imagenet": 7.6,
    "r_resnet53_lvbn_imagenet": 7.6,
    "mobilenetv2_base": 0.300,
    "resnet110_cifar": 0.255,
    "resnet56_cifar": 0.127,
    "resnet20_cifar": 0.041,
}


def test_macs_of_ungated_nets():
    for name, printed in UNGATED.items():
        size = get_preset(name).size
        assert macs(built(name), size) / 1e9 == pytest.approx(printed, rel=0.04)
    for blocks, printed in (((3, 4, 6, 3), 3.8), ((3, 4, 23, 3), 7.6)):
        base = built("r_resnet53_imagenet", blocks=blocks, loops=(1,) * 4)
        assert macs(base, 224) / 1e9 == pytest.approx(printed, rel=0.04)


def test_most_macs_are_the_base_nets():
    """§4.1: "the maximum computational cost of our network does not exceed its counterpart"."""
    for name, base, size in (
        ("dr_resnet35_imagenet", {"blocks": (3, 4, 6, 3), "loops": (1,) * 4, "gates": "none"}, 224),
        ("dr_mobilenetv2", {"blocks": (1, 2, 3, 4, 3, 3, 1), "loops": (1,) * 7, "gates": "none"}, 224),
        ("dr_resnet40_cifar", {"blocks": (9, 9, 9), "loops": (1,) * 3, "gates": "none"}, 32),
    ):
        assert macs(built(name, gates="none"), size) == macs(built(name, **base), size)


@pytest.mark.parametrize("depth", [65, 53, 47, 44])
def test_mean_macs_of_the_imagenet_nets(depth):
    net = built(f"dr_resnet{depth}_imagenet")
    targets = {0.7: IMAGENET[depth][1]} | ({0.65: 4.62, 0.6: 4.35} if depth == 53 else {})
    for target, printed in targets.items():
        assert expected_macs(net, target, 224) / 1e9 == pytest.approx(printed, rel=0.01)


def test_macs_of_gates_that_are_always_open_are_the_most():
    net = pp.create_model("dr_resnet_small", width=4)
    assert expected_macs(net, 1.0) == sum(macs_by_node(net).values()) > expected_macs(net, 0.5)
    shut = pp.extract(net, "loops=0")
    first_gates = 2 * (8 * 16 + 16 * 2) + 2 * (16 * 16 + 16 * 2)  # two blocks of 8 maps, two of 16
    assert expected_macs(net, 0.0) == sum(macs_by_node(shut).values()) + first_gates


def test_expected_loops_of_dr_resnet_53():
    net = built("dr_resnet53_imagenet")
    assert expected_loops(net, 0.7) == pytest.approx(11.921)
    assert expected_loops(net.wiring, 1.0) == 23
    assert expected_loops(net, 0.7, "all") != pytest.approx(11.921)


def test_the_pages_of_the_card_agree_with_the_presets():
    card = (Path(__file__).parents[2] / "docs/cards/recursive.md").read_text()
    for name in pp.list_models("dr_*") + pp.list_models("r_resnet*") + pp.list_models("aig_*"):
        if get_preset(name).printed:
            assert f"| `{name}` |" in card
            assert f"{round(millions(built(name)) * 1e6):,}" in card


# --- what is drawn -------------------------------------------------------------------------------------------


def test_the_keys_read_like_the_paper():
    net = built("dr_resnet53_imagenet")
    keys = {key for key in net.state_dict() if key.startswith("group3.block2.") and key.endswith("weight")}
    assert keys == {
        *(f"group3.block2.unit{i}.conv.weight" for i in (1, 2, 3)),
        *(f"group3.block2.unit{i}.norm.loop{k}.weight" for i in (1, 2, 3) for k in (1, 2, 3)),
        *(f"group3.block2.gate.{part}.weight" for part in ("hidden", "norm", "last")),
    }
    assert "group3.block1.unit1.norm.weight" in net.state_dict()  # it changes the size, and does not recur
    switch = net.wiring.joins["group3.block2.loops"]
    assert switch.labels == ("0", "1", "2", "3")
    assert [g.source for g in switch.gates] == [
        "group3.block1.relu",
        "group3.block2.loop1.relu",
        "group3.block2.loop2.relu",
    ]


def test_which_blocks_have_gates():
    def gated(**fields):
        net = built("dr_resnet53_imagenet", **fields)
        return {name: len(join.gates) for name, join in net.wiring.joins.items() if join.kind == "switch"}

    recursive = gated()
    assert len(recursive) == 8
    assert recursive["group4.block2.loops"] == 2
    assert set(gated(gates="none").values()) == {0}
    every = gated(gates="all")
    assert len(every) == 17
    assert (every["group1.block1.loops"], every["group3.block2.loops"]) == (1, 3)
    assert gated(first_loop="free")["group3.block2.loops"] == 2
    mobile = built("dr_mobilenetv2", gates="all").wiring.joins
    assert "group3.block1.loops" not in mobile  # no shortcut, so it cannot be skipped
    assert "group2.block2.loops" in mobile


def test_gates_have_the_papers_layers():
    hidden = part(built("dr_resnet53_imagenet"), "group3.block2.gate.hidden")
    assert (hidden.in_features, hidden.out_features) == (1024, 16)
    gate = part(built("dr_mobilenetv2"), "group4.block2.gate")
    assert gate.hidden is None
    assert (gate.last.in_features, gate.last.out_features) == (64, 2)


@pytest.mark.parametrize(("stride_at", "strides"), [("1x1", [2, 1, 1]), ("3x3", [1, 2, 1])])
def test_which_conv_of_a_bottleneck_has_the_stride(stride_at, strides):
    net = built("dr_resnet53_imagenet", stride_at=stride_at)
    assert [part(net, f"group2.block1.unit{i}.conv").stride[0] for i in (1, 2, 3)] == strides
    spec = get_preset("dr_resnet53_imagenet").spec
    assert isinstance(spec, RecursiveResNet)
    assert spec.stride_at == "1x1"


def test_the_shortcut_without_parameters():
    x = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    out = PadShortcut(2, 2)(x)
    assert torch.equal(out[:, :3], x[:, :, [0, 2, 4]][:, :, :, [0, 2, 4]])
    assert out.shape == (2, 5, 3, 3)
    assert not out[:, 3:].any()


def test_statistics_of_each_ablation():
    def seen(name):
        net = built(name)
        return {m.statistics for m in net.modules() if isinstance(m, LoopUnit | GateUnit)}

    assert seen("dr_resnet53_imagenet") == {"passed"}
    assert seen("dr_resnet53_lvbn_imagenet") == seen("r_resnet53_lvbn_imagenet") == {"all"}
    assert isinstance(built("r_resnet53_imagenet").get_submodule("group3.block2.unit1.norm"), nn.BatchNorm2d)
    assert isinstance(built("r_resnet53_lvbn_imagenet").get_submodule("group3.block2.unit1.norm"), nn.ModuleDict)
    assert isinstance(built("aig_resnet101_imagenet").get_submodule("group3.block2.unit1.norm"), nn.BatchNorm2d)


def test_conv_net_aig_is_the_case_of_one_loop():
    net = built("aig_resnet101_imagenet")
    switches = [join for join in net.wiring.joins.values() if join.kind == "switch"]
    assert len(switches) == 33
    assert all(join.labels == ("0", "1") and len(join.gates) == 1 for join in switches)
    assert expected_loops(net, 0.7) == pytest.approx(33 * 0.7)


# --- the nets that they are built from -----------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_without_loops_it_is_the_resnet(block):
    blocks, x = (2, 2, 1), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    theirs = randomise_norms(ResNet(blocks=blocks, width=8, block=block, num_classes=5).build(seed=0)).double().eval()
    spec = RecursiveResNet(
        blocks=blocks, width=8, block=block, num_classes=5, loops=(1, 1, 1), gates="none", stride_at="3x3"
    )
    ours = spec.build(seed=1).double().eval()
    assert not torch.allclose(ours(x), theirs(x))
    ours.load_state_dict({key.replace(".branch.", "."): value for key, value in theirs.state_dict().items()})
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    assert not ours.selectors


@torch.inference_mode()
def test_mobilenet_v2_is_timms():
    timm = pytest.importorskip("timm")
    theirs = randomise_norms(timm.create_model("mobilenetv2_100", num_classes=5)).double().eval()
    ours = pp.create_model("mobilenetv2_base", num_classes=5).double().eval()
    kinds = nn.Conv2d | nn.BatchNorm2d | nn.Linear
    pairs = zip(*([m for m in net.modules() if isinstance(m, kinds)] for net in (ours, theirs)), strict=True)
    for mine, its in pairs:
        mine.load_state_dict(its.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    theirs.classifier.bias.add_(1.0)
    assert not torch.allclose(ours(x), theirs(x), atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["basic", "mobilenet"])
def test_the_whole_is_the_unrolled_net(family):
    """l loops of a block are l blocks with the same convs, each with its own norms."""
    if family == "basic":
        base = RecursiveResNet(blocks=(1, 2, 1), loops=(1, 3, 1), gates="none", width=4, num_classes=5)
        flat = replace(base, blocks=(1, 4, 1), loops=(1, 1, 1))
        groups = {"group2.block2": [f"group2.block{i}" for i in (2, 3, 4)]}
    else:
        small = {"widths": (4, 4, 6, 8, 8, 12, 16), "stem_width": 4, "last_width": 16, "num_classes": 5}
        base = RecursiveMobileNetV2(gates="none", **small)
        flat = replace(base, blocks=(1, 2, 3, 4, 3, 3, 1), loops=(1,) * 7)
        loops = dict(enumerate(base.loops, 1))
        groups = {
            f"group{g}.block2": [f"group{g}.block{i}" for i in range(2, loops[g] + 2)] for g in loops if loops[g] > 1
        }
    ours, plain = randomise_norms(base.build(seed=0)).double().eval(), flat.build(seed=1).double().eval()
    state = {}
    for key, value in ours.state_dict().items():
        name = ".".join(key.split(".")[:2])
        if name not in groups:
            state[key] = value
        for k, copy in enumerate(groups.get(name, ()), 1):
            if ".norm." not in key:
                state[key.replace(name, copy)] = value
            elif f".loop{k}." in key:
                state[key.replace(name, copy).replace(f".loop{k}", "")] = value
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.allclose(ours(x), plain(x), atol=1e-3)
    plain.load_state_dict(state)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-10, atol=1e-10)


def test_every_loop_of_naive_recursion_shares_its_norm():
    net = pp.create_model("r_resnet53_imagenet", blocks=(1, 1, 2, 2), width=4, num_classes=5, seed=0).train()
    net(torch.randn(2, 3, 64, 64))
    assert net.get_submodule("group3.block2.unit1.norm").num_batches_tracked == 3
    twin = pp.create_model("r_resnet53_lvbn_imagenet", blocks=(1, 1, 2, 2), width=4, num_classes=5, seed=0).train()
    twin(torch.randn(2, 3, 64, 64))
    assert twin.get_submodule("group3.block2.unit1.norm.loop2").num_batches_tracked == 1


# --- paths ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return randomise_norms(pp.create_model("dr_resnet_small", width=4, num_classes=5, seed=0)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_named_paths(small):
    assert list(small.named_paths()) == ["whole", "loops=max", "loops=2", "loops=1", "loops=0"]
    assert small.paths("loops=dynamic") == small.paths("whole")
    assert small.paths("loops=2/3") == small.paths("loops=max")
    assert str(small.paths("loops=1/dynamic")) == "group2.block2.loops=1;group2.block3.loops=1"
    assert small.paths("group2.block2.loops=1;group2.block3.loops=1") == small.paths("loops=1/dynamic")
    ungated = built("r_resnet53_lvbn_imagenet")
    assert list(ungated.named_paths()) == ["whole", "loops=2", "loops=1", "loops=0"]
    assert ungated.paths("loops=max") == ungated.paths("whole")
    counts = [pp.count_paths(ungated, text) for text in ("loops=max", "loops=2", "loops=1")]
    assert counts == [pp.count_paths(pp.extract(ungated, text)) for text in ("loops=max", "loops=2", "loops=1")]
    assert pp.count_paths(ungated) > counts[0] > counts[1] > counts[2]


@torch.inference_mode()
def test_fixed_loops_extract_to_a_plain_network(small, x):
    outputs = []
    for text, loops in (("loops=max", (2, 3)), ("loops=2", (2, 2)), ("loops=1", (1, 1)), ("loops=0", (0, 0)),
                        ("loops=2/0", (2, 0)), ("group3.block3.loops=1;loops=2/dynamic", None)):  # fmt: skip
        child = pp.extract(small, text)
        outputs.append(small(x, paths=text))
        assert torch.equal(child(x), outputs[-1])
        assert set(child.state_dict()) < set(small.state_dict())
        if loops is None:
            continue
        assert not any(join.kind == "switch" for join in child.wiring.joins.values())
        assert not any("gate" in key for key in child.state_dict())
        for group, most in zip((2, 3), loops, strict=True):
            norms = {key.split(".loop")[1][0] for key in child.state_dict() if f"group{group}.block2.unit1.norm" in key}
            assert norms == set(map(str, range(1, most + 1)))
        assert child.named_paths() == {"whole": pp.Paths()}
        assert child.paths(text) == pp.Paths()
        with pytest.raises(ValueError, match=r"no longer has this path|has no gates"):
            child.paths("loops=dynamic" if text == "loops=max" else "loops=max")
    assert all(not torch.allclose(outputs[0], other, atol=1e-3) for other in outputs[1:])


@torch.inference_mode()
def test_an_extracted_net_that_stays_dynamic_keeps_its_gates(small, x):
    child = pp.extract(small, "loops=1/dynamic")
    gates = {name for name, join in child.wiring.joins.items() if join.gates}
    assert gates == {"group3.block2.loops", "group3.block3.loops"}
    trace = pp.Trace()
    assert torch.equal(child(x, trace=trace), small(x, paths="loops=1/dynamic"))
    assert len(trace.gates) == 6
    assert "group3.block2.gate.last.weight" in child.state_dict()
    assert "group2.block2.gate.last.weight" not in child.state_dict()
    grandchild = pp.extract(child, "group3.block2.loops=2;group3.block3.loops=0")
    assert torch.equal(grandchild(x), small(x, paths="loops=1/dynamic;group3.block2.loops=2;group3.block3.loops=0"))
    whole = pp.extract(small, "whole")
    assert torch.equal(whole(x), small(x))
    assert set(whole.state_dict()) == set(small.state_dict())


@pytest.mark.parametrize("text", ["loops=2", "loops=0/1"])
def test_fixed_paths_compile_and_export(x, text):
    net = pp.create_model("dr_resnet_small", blocks=(1, 2, 2), loops=(1, 2, 2), width=4, seed=0)
    fixed = pp.extract(randomise_norms(net).eval(), text)
    with torch.inference_mode():
        expected = net(x, paths=text)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(fixed, backend="aot_eager", fullgraph=True)(x)
    assert_close(compiled, expected)
    assert_close(torch.export.export(fixed, (x,)).module()(x), expected)


@torch.inference_mode()
def test_blocks_that_do_not_recur_run_where_loops_are_numbered(x):
    net = pp.create_model("dr_resnet_small", width=4, gates="all", seed=0).eval()
    for text, ran in (("loops=0", "1"), ("loops=2", "1"), ("loops=max", "1")):
        paths = net.paths(text)
        assert paths["group1.block1.loops"] == paths["group2.block1.loops"] == (ran,)
    mixed = net.paths("loops=dynamic/1")
    assert "group2.block1.loops" not in mixed  # the gates of this group decide
    assert mixed["group3.block1.loops"] == mixed["group1.block1.loops"] == ("1",)
    aig = pp.create_model("aig_resnet110_cifar", blocks=(2, 2, 2), width=4, seed=0).eval()
    assert list(aig.named_paths()) == ["whole", "loops=max", "loops=0"]
    assert aig.wiring.longest(aig.paths("loops=0")) == 2  # the first conv and the classifier
    assert torch.equal(pp.extract(aig, "loops=0")(x), aig(x, paths="loops=0"))
    assert net(x, paths="loops=1/dynamic").shape == (3, 10)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("loops=3", "must be one of 0, 1, 2, max, dynamic; or give one for each of groups 2, 3, up to 2/3"),
        ("loops=2/4", "loops '4' for group 3: must be one of 0, 1, 2, 3, max, dynamic"),
        ("loops=3/3", "for group 2: must be one of 0, 1, 2, max"),
        ("loops=-1", "loops '-1': must be one of 0, 1, 2"),
        ("loops=many", "loops 'many'"),
        ("loops=1/1/1", "give one entry, or 2 entries separated by '/', for groups 2, 3"),
        ("group2.block2.loops=3", "its operands are 0, 1, 2"),
        ("group2.block2.loops=1,2", "choose exactly one"),
    ],
)
def test_illegal_loops(small, text, told):
    with pytest.raises(ValueError, match=told.replace("'/'", ".*")):
        small.paths(text)


def test_dynamic_loops_of_a_net_without_gates_are_refused():
    ungated = built("r_resnet53_lvbn_imagenet")
    with pytest.raises(ValueError, match="has no gates; choose a number of loops, or max"):
        ungated.paths("loops=dynamic")
    with pytest.raises(ValueError, match="must be one of 0, 1, 2, max; or give one for each"):
        ungated.paths("loops=4")
    with pytest.raises(ValueError, match="no gates, so there are no expected loops"):
        expected_loops(ungated, 0.7)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"loops": (1, 2)}, "must have 3 entries"),
        ({"loops": (1, 0, 2)}, "at least 1"),
        ({"blocks": (2, 1, 2)}, "group 2 has no block that can recur"),
        ({"loops": (1, 1, 1)}, "gates = 'recursive': requires a block that recurs"),
        ({"norm": "batch"}, "must be one of i-lvbn, i-lvbn-updates, lvbn, shared"),
        ({"gates": "some"}, "must be one of none, recursive, all"),
        ({"first_loop": "shut"}, "must be one of gated, free"),
        ({"gate_open": 1.0}, r"\(0, 1\)"),
        ({"gate_hidden": -1}, "at least 0"),
        ({"shortcut": "none"}, "must be one of projection, pad"),
        ({"stride_at": "5x5"}, "must be one of 1x1, 3x3"),
        ({"blocks": (0, 3, 3)}, "at least 1"),
    ],
)
def test_illegal_arguments(fields, told):
    with pytest.raises(ValueError, match=told):
        pp.create_model("dr_resnet_small", **fields)


def test_illegal_mobilenets():
    with pytest.raises(ValueError, match=r"widths .* must have 7 entries"):
        RecursiveMobileNetV2(widths=(4, 4))
    with pytest.raises(ValueError, match="group 7 has no block that can recur"):
        RecursiveMobileNetV2(loops=(1, 1, 2, 3, 2, 2, 2))


# --- gates at work -------------------------------------------------------------------------------------------


def test_cross_entropy_alone_teaches_the_gates():
    net = pp.create_model("dr_resnet_small", width=4, num_classes=5, seed=0).train()
    g = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 16, 16, generator=g)
    nn.functional.cross_entropy(net(images, generator=g), torch.arange(16) % 5).backward()
    for gate in [m for m in net.modules() if isinstance(m, GateUnit)]:
        assert gate.hidden is not None
        assert gradient(gate.last.weight).abs().max() > 0
        assert gradient(gate.hidden.weight).abs().max() > 0


def test_new_gates_are_open_for_85_percent():
    net = pp.create_model("dr_resnet_small", width=4, seed=0)
    again = pp.create_model("dr_resnet_small", width=4, seed=0)
    gate = part(net, "group2.block2.gate.last")
    assert float(gate.bias.detach().softmax(0)[1]) == pytest.approx(0.85)
    assert float(gate.weight.detach().std()) == pytest.approx(0.001, rel=0.5)
    assert torch.equal(gate.weight, part(again, "group2.block2.gate.last").weight)
    low = pp.create_model("dr_resnet_small", width=4, gate_open=0.5)
    assert float(part(low, "group2.block2.gate.last").bias.detach().softmax(0)[1]) == pytest.approx(0.5)


def test_the_config_builds_the_network_again():
    spec = get_preset("dr_mobilenetv2").spec
    with torch.device("meta"):
        config = json.loads(json.dumps(spec.build().config))
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["arguments"].items()}
    assert RecursiveMobileNetV2(**arguments) == spec
