"""Every registered model is a backbone: its stages' maps, whole and under two paths, alone and exported."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

import polypath as pp
from conftest import assert_close
from contracts.gated import undecided
from contracts.small import FORMS, small_net, small_spec, two_paths
from polypath.core.expansion import trunk
from polypath.deploy import onnx_graph
from polypath.families.fractalnet import FractalNet
from polypath.families.registry import PRESETS, get_preset

FIRST_OF_FAMILY = {get_preset(name).spec.family: name for name in reversed(FORMS)}
SIDE = 32


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def every_form(*quick: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in FORMS]


@pytest.mark.parametrize("name", FORMS)
def test_features_are_the_values_at_the_stages_nodes(name):
    """Under a choice and of the extracted network, to the bit; names stay."""
    net = small_net(name).eval()
    x, nodes = images(2), frozenset(node for of in net.stage_nodes.values() for node in of)
    seen: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for text in ["whole", *two_paths(net)]:
            trace = pp.Trace(nodes)
            net(x, paths=text, trace=trace)
            expected = [mean([trace.values[n] for n in of if n in trace.values]) for of in net.stage_nodes.values()]
            features, maps = net.forward_intermediates(x, paths=text)
            assert_equal(maps, expected)
            assert torch.equal(features, net.forward_features(x, text))
            assert torch.equal(features, maps[-1])  # what the head reads
            child = pp.extract(net, text)
            assert list(child.stage_nodes) == list(net.stage_nodes)
            assert_equal(child.forward_intermediates(x)[1], expected)
            seen[text] = features
    if two_paths(net):
        assert not torch.equal(seen["whole"], seen[two_paths(net)[-1]])


@pytest.mark.parametrize("name", FIRST_OF_FAMILY.values())
def test_stages_are_kept_with_the_network(name, tmp_path):
    """Saved and loaded, extracted, described."""
    net = small_net(name).eval()
    child = pp.extract(net, two_paths(net)[-1] if two_paths(net) else "whole")
    pp.save(child, tmp_path / "net")
    loaded = pp.load(tmp_path / "net")
    assert loaded.stage_nodes == child.stage_nodes
    assert loaded.feature_info == child.feature_info == net.feature_info
    with torch.inference_mode():
        assert_equal(loaded.forward_intermediates(images(2))[1], child.forward_intermediates(images(2))[1])


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    assert values
    return sum(values[1:], values[0]) / len(values)


def assert_equal(found: Any, expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", FORMS)
def test_there_is_one_stage_for_each_resolution(name):
    """The last node there that all paths go through; what only leads to the next resolution belongs to that."""
    spec: Any = small_spec(name)
    net = spec.build(seed=0).eval()
    assert spec.stages() == net.stage_nodes
    x = images(2)
    trace = pp.Trace(frozenset(net.wiring.by_name))
    with torch.inference_mode():
        maps = net.forward_intermediates(x, trace=trace, paths=None)[1]
    sides = [m.shape[-1] for m in maps]
    assert sides == sorted(set(sides), reverse=True)
    for info, m in zip(net.feature_info, maps, strict=True):
        assert (info["num_chs"], info["reduction"]) == (m.shape[1], SIDE // m.shape[-1])
    assert net.num_features == net.feature_info[-1]["num_chs"]
    last: dict[int, list[str]] = {}
    for node, _ in trunk(net.wiring):
        if not node.name.startswith("head.") and node.name not in leading(net.wiring):
            last[trace.values[node.name].shape[-1]] = [node.name]
    if spec.family == "dfn_mr":  # its streams share nothing until they are one
        for side, of in zip(sides, net.stage_nodes.values(), strict=True):
            last.setdefault(side, [*of])
            if len(of) > 1:
                assert [name.rstrip("12") for name in of] == [of[0][:-1]] * spec.streams
                last[side] = [*of]
    assert dict(zip(sides, map(list, net.stage_nodes.values()), strict=True)) == last


def leading(wiring) -> set[str]:
    """Nodes that begin the next resolution though they are of the size of the last: GUNN's and FractalNet's 1×1
    transitions, the first 1×1 conv of a strided MobileNetV2 block, a FractalNet column's conv before its pool."""
    named = {f"trans{i}.unit1" for i in range(1, 9) if f"trans{i}.pool" in wiring.by_name}
    named |= {f"block{i}.transition" for i in range(1, 9)} | {f"conv1.{part}" for part in ("pool", "unit2")}
    named |= {f"block{i}.column1.unit1" for i in range(1, 9) if f"block{i}.column1.pool" in wiring.by_name}
    first = [f"group{i}.block1.{unit}" for i in range(1, 9) for unit in ("unit1", "loop1.unit1")]
    return named | {n for n in first if "last.unit" in wiring.by_name}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_registered_model_has_three_stages_or_more(name):
    """So no registered model is an exception for timm's tests; a spec of two blocks has two."""
    stages = PRESETS[name].spec.stages()
    assert len(stages) >= 3


@pytest.mark.parametrize("pool", ["before", "after"])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("stem", ["none", "imagenet"])
def test_columns_with_norms_of_their_own_have_the_fractals_stages(stem, columns, pool):
    spec = FractalNet(filters=(4, 6, 8), columns=columns, pool=pool, stem=stem, transitions=(2,), num_classes=3)
    tied = FractalNet(**{**vars(spec), "own_norms": True}).build(seed=0).eval()
    plain = spec.build(seed=0).eval()
    assert tied.feature_info == plain.feature_info
    reductions = [info["reduction"] for info in plain.feature_info]
    assert reductions == sorted(set(reductions))
    x = images(2)
    for text in ["whole", "tied=column1"]:
        child = pp.extract(tied, text)
        maps, alone = tied.forward_intermediates(x, paths=text)[1], child.forward_intermediates(x)[1]
        assert_equal(alone, list(maps))
        assert [(m.shape[1], SIDE // m.shape[-1]) for m in maps] == [
            (info["num_chs"], info["reduction"]) for info in plain.feature_info
        ]


@pytest.mark.parametrize("name", every_form(*FIRST_OF_FAMILY.values()))
def test_no_later_step_runs_and_no_other_path(name):
    net = small_net(name).eval()
    for text, k in itertools.product(["whole", *two_paths(net)], range(len(net.stage_nodes))):
        child = pp.extract(net, text)
        (ran, alone), (inside, within) = watched(child), watched(net)
        with torch.inference_mode():
            child.forward_intermediates(images(1), [k], stop_early=True)
        ends = list(child.stage_nodes.values())[k]
        allowed = {n.name for n in child.wiring.alive(ends=ends)} if ends != ("input",) else set()
        gated = any(join.gates for join in child.wiring.joins.values())
        assert set(ran) <= allowed if gated else sorted(ran) == sorted(allowed)
        assert len(ran) == len(set(ran))
        with torch.inference_mode():
            net.forward_intermediates(images(1), [k], intermediates_only=True, paths=text)
        assert [n for n in inside if n in child.wiring.by_name] == ran
        for handle in (*alone, *within):
            handle.remove()


def watched(net: pp.PathNet) -> tuple[list[str], list[RemovableHandle]]:
    """The nodes that run from here on, and the hooks that see them."""
    ran: list[str] = []
    return ran, [net.register_node_hook(node, lambda name, _: ran.append(name)) for node in net.wiring.by_name]


class Getter(nn.Module):
    """What a user exports: the maps of all stages under one choice."""

    def __init__(self, net: pp.PathNet, paths: str):
        super().__init__()
        self.net, self.paths = net, paths

    def forward(self, x):
        return self.net.forward_intermediates(x, intermediates_only=True, paths=self.paths)


def checked_export(net: pp.PathNet, text: str, x: torch.Tensor) -> torch.export.ExportedProgram:
    """A program for any batch size whose maps are those of eager."""
    getter = Getter(net, text).eval()
    program = onnx_graph.exported(getter, x[:2])
    with torch.no_grad():
        for found, expected in zip(program.module()(x), getter(x), strict=True):
            assert found.shape == expected.shape
            assert_close(found, expected)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_exported_they_are_the_same(name):
    net = small_net(name).eval()
    for text in ["whole", *two_paths(net)]:
        checked_export(net, text, images(3))


def test_exported_the_mean_of_streams_is_the_same():
    net = small_net(FIRST_OF_FAMILY["dfn_mr"]).eval()
    checked_export(net, "whole", images(3))


def test_exported_with_gates_every_sample_has_its_value():
    net, x = undecided("dr_resnet_small")
    checked_export(net, "whole", x)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_OF_FAMILY.values())
def test_exported_as_onnx_they_are_the_same(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = small_net(name).eval()
    outputs = [f"stage{i}" for i in range(len(net.stage_nodes))]
    model = onnx_graph.to_onnx(checked_export(net, "whole", images(3)), fold=True, name="stages", outputs=outputs)
    onnx_graph.write(model, tmp_path / "stages.onnx")
    session = runtime.InferenceSession(tmp_path / "stages.onnx", providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == outputs
    with torch.no_grad():
        expected = Getter(net, "whole")(images(3))
    found = session.run(None, {onnx_graph.IMAGES: images(3).numpy()})
    for one, wanted in zip(found, expected, strict=True):
        assert_close(torch.from_numpy(one), wanted, within=1e-4)
