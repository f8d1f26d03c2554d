"""A fused network answers as the one that it is made of, and is another one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import polypath as pp
from conftest import part, randomise_norms
from contracts.small import SHRINK, small_net
from polypath.core.builder import NetBuilder
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.gunn import Gunn
from polypath.families.recursive import RecursiveResNet
from polypath.families.registry import PRESETS
from polypath.fusion.gates import FoldedGate
from polypath.fusion.gunn import FusedGunn
from polypath.fusion.units import FoldedConv
from polypath.layers.conv import ConvUnit
from polypath.layers.gates import GateUnit

# one preset of every family, and those whose picture differs
MODELS = [
    "fractalnet20", "fractalnet20_transition", "fractalnet34_imagenet", "crescendonet_128", "crescendonet_512w",
    "gunn15", "gunn18_imagenet", "gunn15_nores", "sunn15", "plain26_cifar", "fusenet_nf3_14", "fusenet_nf6_26",
    "resnet26_cifar", "fusenet_resnet50_imagenet", "dfn1_imagenet", "dfn2_imagenet", "dfn_il14", "dfn_mr14",
    "dfn_mr_imagenet", "dr_resnet74_cifar", "dr_resnet53_imagenet", "r_resnet53_lvbn_imagenet",
    "aig_resnet50_imagenet", "dr_mobilenetv2", "mobilenetv2_base",
]  # fmt: skip
MODELS = [name for name in MODELS if name in PRESETS]


def images(net, dtype=torch.float32, n=3, seed=0) -> torch.Tensor:
    size = max(net.min_size, 16) + 1
    x = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype)


def some_negative(net: pp.PathNet) -> pp.PathNet:
    """Turn the sign of every third channel's norm, and set one to zero."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            with torch.no_grad():
                module.weight[::3] *= -1
                module.weight[1:2] = 0.0
    return net


def lively(net: pp.PathNet) -> pp.PathNet:
    """Weights that keep the signal's size, so that every layer matters to the answer."""
    g = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=g)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1, generator=g)
    return some_negative(net)


def assert_alike(got: torch.Tensor, want: torch.Tensor, error: float) -> None:
    """Within ``error`` of the largest value."""
    assert got.shape == want.shape
    assert (got - want).abs().max() <= error * want.abs().max()


def paths_of(net) -> list[str | None]:
    named = list(net.named_paths())
    return [None, *dict.fromkeys([named[len(named) // 2], named[-1]])]


def test_every_family_is_met():
    assert {PRESETS[name].spec.family for name in MODELS} == set(SHRINK)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_fused_networks_answer_alike_in_float64(name):
    net = lively(small_net(name)).double().eval()
    x, before = images(net, torch.float64), {k: v.clone() for k, v in net.state_dict().items()}
    for paths in paths_of(net):
        fused, wanted = pp.fuse(net, paths), net(x, paths=paths)
        assert_alike(fused(x), wanted, 1e-9)
        assert_alike(fused(x.flip(0)), wanted.flip(0), 1e-9)
        assert (fused(x.flip(3)) - wanted).abs().max() > 1e-4 * wanted.abs().max()
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_fused_networks_answer_alike_in_float32(name):
    net = lively(small_net(name)).eval()
    x = images(net)
    assert_alike(pp.fuse(net)(x), net(x), 1e-5)


@torch.inference_mode()
def test_another_weight_gives_another_answer():
    net, twin = (small_net("crescendonet_128", seed=s).double().eval() for s in (0, 1))
    x = images(net, torch.float64)
    assert not torch.allclose(pp.fuse(net)(x), twin(x), rtol=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        CrescendoNet(widths=(4, 6), hidden=(8,), dropout=0.2, order="conv-norm-act-drop"),
        CrescendoNet(widths=(4, 6), hidden=(8,), order="conv-norm"),
        CrescendoNet(widths=(4, 6), hidden=(8,), bias=True),
        FractalNet(filters=(4, 6), columns=3, join="sum", pool="after", bias=True, affine=False, dropout=(0.3,)),
        FractalNet(filters=(4, 6), columns=3, join="max"),
        FractalNet(filters=(4, 6), columns=2, join="concat"),
        FractalNet(filters=(4, 6), columns=3, own_norms=True),
    ],
    ids=lambda spec: f"{spec.family}-{spec.order}",
)
@torch.inference_mode()
def test_other_forms_of_the_families(spec):
    net = lively(randomise_norms(spec.build(0))).double().eval()
    x = images(net, torch.float64)
    for paths in paths_of(net):
        assert_alike(pp.fuse(net, paths)(x), net(x, paths=paths), 1e-9)


@torch.inference_mode()
def test_a_norm_after_the_activation_is_exact_at_padded_borders():
    """A shift that is not zero is padded with zeros all the same; folded into the next conv it would not be."""
    net = randomise_norms(CrescendoNet(widths=(3,), scale=2, hidden=(4,)).build(0)).double().eval()
    x, fused = images(net, torch.float64), pp.fuse(net)
    values = [pp.Trace(frozenset({"block1.join"})) for _ in range(2)]
    net(x, trace=values[0])
    fused(x, trace=values[1])
    want, got = (trace.values["block1.join"] for trace in values)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert any(m.act == "clamp" for m in fused.modules() if isinstance(m, FoldedConv))


def test_means_lose_their_division():
    fused = pp.fuse(small_net("crescendonet_128").eval())
    assert {join.kind for join in fused.wiring.joins.values()} == {"sum"}


def mean_of_a_stem(then: nn.Module) -> pp.PathNet:
    """relu((a + b) / 2 + conv(a)), where a and b are read twice, then ``then``, then a conv."""
    b = NetBuilder()
    stem = [b.add(f"stem{i}", b.input, ConvUnit(3, 8, 3)) for i in "ab"]
    other = b.join("other", dict(zip("ab", stem, strict=True)), "max")
    merge = b.join("merge", dict(zip("ab", stem, strict=True)), "mean")
    z = b.join("out", {"L": merge, "R": b.add("branch", stem[0], ConvUnit(8, 8, 3, order="conv-norm"))}, "sum")
    z = b.add("end", b.add("then", b.add("relu", z, nn.ReLU()), then), ConvUnit(8, 8, 1))
    z = b.join("all", {"z": z, "other": other}, "concat")
    return b.net(z)


@pytest.mark.parametrize("then", [nn.MaxPool2d(3, stride=1, padding=1), nn.Sigmoid()])
@torch.inference_mode()
def test_a_mean_s_factor_travels_to_the_next_conv_or_not_at_all(then):
    net = lively(randomise_norms(mean_of_a_stem(then))).double().eval()
    x, fused = images(net, torch.float64), pp.fuse(net)
    assert_alike(fused(x), net(x), 1e-12)
    kinds = {name: join.kind for name, join in fused.wiring.joins.items()}
    assert kinds["merge"] == ("sum" if isinstance(then, nn.MaxPool2d) else "mean")
    for module in fused.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.mul_(1.001)
            assert (fused(x) - net(x)).abs().max() > 1e-6 * net(x).abs().max()
            module.weight.div_(1.001)


@torch.inference_mode()
def test_merge_and_run_has_no_mean_left():
    net = lively(small_net("dfn_mr14")).double().eval()
    x, fused = images(net, torch.float64), pp.fuse(net)
    assert {join.kind for join in fused.wiring.joins.values()} == {"sum"}
    assert_alike(fused(x), net(x), 1e-12)


@pytest.mark.parametrize("name", ["crescendonet_128", "fractalnet20", "dfn_mr14", "dfn_il14"])
@torch.inference_mode()
def test_all_siblings_run_as_one(name):
    net = lively(small_net(name)).double().eval()
    x, fused = images(net, torch.float64), pp.fuse(net, siblings="all")
    assert_alike(fused(x), net(x), 1e-9)
    merged = [node for node in fused.wiring.nodes if node.name.startswith("siblings.")]
    assert merged
    assert sum(isinstance(m, FoldedConv) for m in fused.modules()) < sum(
        isinstance(m, nn.Conv2d) for m in net.modules()
    )


@pytest.mark.parametrize("order", ["gradual", "simultaneous"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("wide", [1, 24, 144])
@torch.inference_mode()
def test_every_form_of_gunns_layer(order, parallel, residual, wide, monkeypatch):
    """``wide`` has one, some or all segments of a layer read together."""
    monkeypatch.setattr("polypath.fusion.gunn.WIDE", wide)
    spec = Gunn(
        channels=(8, 12), segments=(4, 3), stacked=(1, 2), stem_width=4, last_width=0, order=order,
        parallel=parallel, residual=residual,
    )  # fmt: skip
    net = lively(randomise_norms(spec.build(0))).double().eval()
    x, fused = images(net, torch.float64), pp.fuse(net)
    assert_alike(fused(x), net(x), 1e-9)
    assert sum(isinstance(m, FusedGunn) for m in fused.modules()) == 2
    group = next(m for m in fused.modules() if isinstance(m, FusedGunn)).groups[-1]
    end = part(group, "segments")[-1]
    (end.later if parallel else end.last).mul_(1.001)
    assert (fused(x) - net(x)).abs().max() > 1e-6 * net(x).abs().max()


@torch.inference_mode()
def test_an_exported_gunn_runs_its_layers_as_they_are():
    net = lively(small_net("gunn15")).eval()
    x = images(net)
    program = torch.export.export(pp.fuse(net), (x,), strict=False)
    assert_alike(program.module()(x), net(x), 1e-5)


@torch.inference_mode()
def test_large_weights_are_laid_out_once(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("oneDNN is not built in")
    conv, x = nn.Conv2d(128, 128, 3, padding=1), torch.randn(2, 128, 4, 4)
    for unit in (FoldedConv(conv, "relu"), FoldedConv(conv, "clamp", torch.full((128,), 0.1)), FoldedConv(conv)):
        fast = unit(x)
        assert unit._packed is not None
        with monkeypatch.context() as m:
            m.setattr(FoldedConv, "packs", False)
            assert_alike(fast, unit(x), 1e-5)
        again = copy.deepcopy(unit)
        assert again._packed is None
        assert_alike(again(x[:1]), fast[:1], 1e-5)
        unit.double()
        assert unit._packed is None
        assert_alike(unit(x.double()).float(), fast, 1e-5)
        unit.float()
        unit.conv.weight.mul_(1.1)
        unit._packed = None
        assert (unit(x) - fast).abs().max() > 1e-2
    assert FoldedConv(nn.Conv2d(4, 4, 3))._packed is None


def test_branches_of_dfn_il_are_one_wide_branch():
    net = small_net("dfn_il14").eval()
    fused, apart = pp.fuse(net), pp.fuse(net, siblings="none")
    assert len(fused.wiring.nodes) < len(apart.wiring.nodes)
    assert not any(node.name.endswith("branch2.unit2") for node in fused.wiring.nodes)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in net.parameters())


@torch.inference_mode()
def test_gates_go_on_deciding():
    name = next(n for n, p in PRESETS.items() if isinstance(p.spec, RecursiveResNet) and p.spec.gates != "none")
    net = small_net(name).double().eval()
    for module in net.modules():  # gates that send samples either way
        if isinstance(module, GateUnit):
            nn.init.normal_(module.last.weight, std=2.0, generator=torch.Generator().manual_seed(1))
    x = images(net, torch.float64, n=8)
    traces = [pp.Trace(), pp.Trace()]
    torch.testing.assert_close(pp.fuse(net)(x, trace=traces[1]), net(x, trace=traces[0]), rtol=1e-9, atol=1e-9)
    opened = [torch.stack([g[3] for g in trace.gates]) for trace in traces]
    assert torch.equal(*opened)
    assert 0 < opened[0].mean() < 1


@torch.inference_mode()
def test_a_folded_gate_sums_nothing_too_large_in_half_precision():
    gate = FoldedGate(nn.Linear(4, 3), nn.Linear(3, 2))
    x = torch.full((2, 4, 32, 32), 100.0)
    assert x.sum((2, 3)).max() > torch.finfo(torch.float16).max
    torch.testing.assert_close(gate.half()(x.half()).float(), gate.float()(x), rtol=0.02, atol=0.1)


def test_what_is_refused():
    net = small_net("crescendonet_128")
    with pytest.raises(ValueError, match=r"training mode.*net\.eval"):
        pp.fuse(net.train())
    with pytest.raises(ValueError, match="branch = '5'"):
        pp.fuse(net.eval(), "branches=5")
    fused = pp.fuse(net)
    with pytest.raises(ValueError, match="a fused network cannot be trained"):
        fused.train()
    with pytest.raises(ValueError, match="has only one path"):
        fused(images(fused), paths="block1.join=1")
    with pytest.raises(ValueError, match="save the original network"):
        pp.save(fused, "nowhere")
    assert not fused.training
    with pytest.raises(ValueError, match="siblings = 'some': must be one of summed, all, none"):
        pp.fuse(net, siblings="some")
