"""Running a path network, extracting from it and replacing its head."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import polypath as pp
from conftest import part, randomise_norms
from polypath.core.builder import NetBuilder
from polypath.core.execute import join
from polypath.core.paths import Paths
from polypath.families.registry import get_preset
from polypath.layers.conv import ConvUnit

NETS = {
    "crescendonet": ("crescendonet_32", {"widths": (8, 8, 8)}),
    "crescendonet growing": ("crescendonet_32", {"widths": (4, 8, 12), "growing": True, "scale": 3, "interval": 2}),
    "fractalnet": ("fractalnet16_small", {"filters": (4, 8, 8)}),
    "fractalnet, pool after": ("fractalnet16_small", {"filters": (4, 8), "pool": "after", "columns": 4}),
    "fractalnet, transitions": ("fractalnet16_small", {"filters": (4, 8), "transitions": (1, 2)}),
    "fractalnet, own norms": ("fractalnet16_small", {"filters": (4, 8), "own_norms": True, "transitions": (2,)}),
    "fractalnet, max": ("fractalnet16_small", {"filters": (4, 8), "join": "max"}),
}


@pytest.fixture(scope="module", params=NETS)
def net(request):
    name, arguments = NETS[request.param]
    return randomise_norms(pp.create_model(name, seed=1, **arguments)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def some_choices(net, count=50, seed=0):
    """The named paths and random choices; each join has one, some or all of its operands with equal probability."""
    rng, found = random.Random(seed), list(net.named_paths().values())
    while len(found) < len(net.named_paths()) + count:
        choice = {}
        for j in net.wiring.joins.values():
            size = 1 if j.kind == "switch" else rng.choice([1, len(j.labels), rng.randint(1, len(j.labels))])
            choice[j.name] = rng.sample(j.labels, size)
        found.append(Paths.of(net.wiring, choice))
    return found


@torch.inference_mode()
def test_an_extracted_network_equals_its_path_to_the_bit(net, x):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    nodes = len(net.wiring.nodes)
    outputs = []
    for paths in some_choices(net):
        child = pp.extract(net, paths)
        outputs.append(net(x, paths=paths))
        assert torch.equal(child(x), outputs[-1])
        state = child.state_dict()
        assert state.keys() <= before.keys()
        if paths:
            assert len(state) < len(before)
            assert len(child.wiring.nodes) < nodes
        assert all(torch.equal(value, before[key]) for key, value in state.items())
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])  # some choices give other outputs
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@torch.inference_mode()
def test_an_extracted_network_does_not_depend_on_its_parent(net, x):
    name = list(net.named_paths())[-1]
    parent = copy.deepcopy(net)
    child = pp.extract(parent, name)
    expected = child(x)
    for p in parent.parameters():
        p.zero_()
    assert torch.equal(child(x), expected)
    assert not torch.equal(parent(x, paths=name), expected)


def test_only_alive_units_are_called(net, x):
    calls: list[str] = []
    handles = [
        net.get_submodule(path).register_forward_hook(lambda *_, path=path: calls.append(path))
        for path in net.wiring.modules
    ]
    with torch.inference_mode():
        for paths in some_choices(net, 5):
            calls.clear()
            net(x, paths=paths)
            assert calls == [n.module for n in net.wiring.alive(paths) if hasattr(n, "module")]
    for handle in handles:
        handle.remove()


def test_gradients_reach_exactly_the_alive_weights(x):
    net = pp.create_model("crescendonet_32", widths=(4, 4, 4), seed=0)
    net(x, paths="branches=1,3/2/4").sum().backward()
    got = {name for name, p in net.named_parameters() if p.grad is not None}
    child = pp.extract(net, "branches=1,3/2/4")
    assert got == {name for name, _ in child.named_parameters()}
    assert len(got) < len(list(net.parameters()))


@torch.inference_mode()
def test_an_extracted_network_can_be_extracted_from(x):
    net = randomise_norms(pp.create_model("crescendonet_32", widths=(4, 4, 4), seed=0)).eval()
    child = pp.extract(net, "branches=1,3,4")
    grandchild = pp.extract(child, "branches=3")
    assert torch.equal(grandchild(x), net(x, paths="branches=3"))
    assert list(child.named_paths()) == [
        "whole",
        "branches=3,4",
        "branches=1,4",
        "branches=4",
        "branches=3",
        "branches=1",
    ]
    assert grandchild.config.get("paths") == str(net.paths("branches=3"))
    with pytest.raises(ValueError, match="no operand '2'"):
        child.paths("branches=2")
    with pytest.raises(ValueError, match="has only another branch"):
        grandchild.paths("branches=4")
    column = pp.extract(pp.create_model("fractalnet16_small", filters=(4, 8)), "column=2")
    with pytest.raises(ValueError, match="column 3: this extracted network no longer has this column"):
        column.paths("column=3")


def test_a_text_and_its_value_run_the_same_path(net, x):
    with torch.inference_mode():
        for name, paths in net.named_paths().items():
            assert torch.equal(net(x, paths=name), net(x, paths=paths))


@torch.inference_mode()
def test_a_choice_is_text_a_mapping_or_none():
    net = pp.create_model("crescendonet_32", widths=(4, 4))
    chosen = net.paths("branches=1,3")
    assert net.paths(dict(chosen)) == net.paths(chosen) == chosen
    assert net.paths(None) == net.paths("whole") == net.paths({}) == Paths()


@pytest.mark.parametrize(
    "choice", [["branches=1"], 3, ("whole",), b"whole", set(), {"block1.join": 3}, {"block1.join": [1]}]
)
def test_an_illegal_choice_is_refused_by_every_function(choice):
    """The message has the field, the value and the legal values."""
    net, x = pp.create_model("crescendonet_32", widths=(4, 4), seed=0), torch.randn(1, 3, 8, 8)
    told = r"join 'block1.join' = .*be labels among 1, 2" if isinstance(choice, dict) else r"paths = .*block1\.join"
    wrong: Any = choice
    entrances: list[Any] = [
        lambda: net(x, paths=wrong),
        lambda: net.paths(wrong),
        lambda: net.forward_features(x, wrong),
        lambda: pp.extract(net, wrong),
        lambda: pp.cost(net, wrong),
        lambda: pp.count_paths(net, wrong),
        lambda: pp.fuse(net.eval(), wrong),
        lambda: pp.Ensemble(net, {"a": wrong}),
    ]
    for enter in entrances:
        with pytest.raises(ValueError, match=told):
            enter()


def test_a_mapping_takes_operands_as_text_too():
    net = pp.create_model("crescendonet_32", widths=(4, 4), seed=0)
    assert net.paths({"block1.join": "1,3"}) == net.paths({"block1.join": ["1", "3"]}) == net.paths("block1.join=1,3")


def test_a_choice_of_another_network_is_refused_however_often(x):
    net = pp.create_model("crescendonet_32", widths=(4, 4))
    other = pp.create_model("fractalnet16_small", filters=(4, 4)).paths("column=2")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"unknown join 'block1\.join2'; did you mean block1\.join"):
            net(x, paths=other)


def test_joins_compute_their_kind():
    a, b, c = (torch.tensor([[[[v]]]]) for v in (1.0, 5.0, -3.0))
    assert join("mean", [a, b, c]).item() == 1.0
    assert join("sum", [a, b, c]).item() == 3.0
    assert join("max", [a, b, c]).item() == 5.0
    assert join("concat", [a, b, c]).shape == (1, 3, 1, 1)
    assert join("sum", [a, b], [1.0, 0.5]).item() == 3.5
    assert join("mean", [a]) is a
    assert a.item() == 1.0  # operands do not change


def test_survival_scales_in_evaluation_only_and_is_kept_by_extraction():
    b = NetBuilder()
    deep = b.add("deep", b.input, nn.Conv2d(1, 1, 1))
    net = b.net(b.join("sum", {"skip": b.input, "run": deep}, "sum", survival={"run": 0.25}))
    x = torch.randn(1, 1, 2, 2)
    run = net.get_submodule("deep")(x)
    assert torch.equal(net.train()(x), x + run)
    torch.testing.assert_close(net.eval()(x), x + 0.25 * run)
    child = pp.extract(net, "sum=run")
    assert torch.equal(child(x), net(x, paths="sum=run"))
    torch.testing.assert_close(child(x), 0.25 * run)


def test_memory_is_released_after_the_last_reader():
    net = pp.create_model("fractalnet16_small", filters=(4, 8))
    steps = net.plan(None)
    held, most = {"input"}, 0
    for step in steps:
        assert set(step.sources) <= held
        held.add(step.node.name)
        most = max(most, len(held))
        held -= set(step.free)
    assert held == {net.wiring.output}
    assert most <= 6  # one for each column, and their joins


def test_the_head_of_the_features_is_the_whole_network(net, x):
    with torch.inference_mode():
        maps = net.forward_features(x)
        assert maps.ndim == 4
        assert torch.equal(net.forward_head(maps), net(x))
        before = net.forward_head(maps, pre_logits=True)
        assert torch.equal(net.get_classifier()(before), net(x))


def test_a_new_head():
    net = pp.create_model("crescendonet_32", widths=(4, 4, 4))
    x = torch.randn(2, 3, 16, 16)
    net.reset_classifier(7)
    assert net(x).shape == (2, 7)
    assert net.config.get("arguments", {}).get("num_classes") == 7
    net.reset_classifier(0)
    assert net(x).shape == (2, 192)
    assert net.num_classes == 0
    net.reset_classifier(3)
    assert net(x).shape == (2, 3)
    with pytest.raises(ValueError, match="num_classes = -1"):
        net.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool"):
        net.reset_classifier(3, global_pool="max")


def test_images_that_are_too_small_or_no_batch_are_refused():
    net = pp.create_model("fractalnet20", filters=(4,) * 5)
    with pytest.raises(ValueError, match=r"16x40 pixels.*at least 32x32"):
        net(torch.randn(1, 3, 16, 40))
    with pytest.raises(ValueError, match=r"must have shape \(N, C, H, W\)"):
        net(torch.randn(3, 32, 32))
    for name in ("fractalnet20", "crescendonet_32", "fractalnet34_imagenet"):
        spec = get_preset(name).spec
        thin: dict[str, Any] = {f: (4,) * len(getattr(spec, f)) for f in ("filters", "widths") if hasattr(spec, f)}
        small = pp.create_model(name, **thin)
        assert small.eval()(torch.randn(1, 3, small.min_size, small.min_size)).shape == (1, spec.num_classes)


@pytest.mark.parametrize(
    "x", [None, [1.0], np.zeros((1, 3, 8, 8), np.float32), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
)
def test_anything_but_a_batch_of_images_is_refused(x):
    with pytest.raises(ValueError, match=r"the images have type .*, but must be"):
        pp.create_model("crescendonet_32", widths=(4, 4))(x)


def test_modules_and_wiring_must_match():
    b = NetBuilder()
    wiring = b.wiring(b.unit("a", b.input))
    with pytest.raises(ValueError, match="'a', which is missing in modules"):
        pp.PathNet(wiring, {})
    with pytest.raises(ValueError, match="modules contains 'b', but no node of the wiring uses it"):
        pp.PathNet(wiring, {"a": nn.Identity(), "b": nn.Identity()})


def test_trace_collects_the_requested_nodes(x):
    net = pp.create_model("crescendonet_32", widths=(4, 4, 4)).eval()
    trace = pp.Trace(nodes=frozenset({"block1.join", "block2.branch1.unit1"}))
    net(x, paths="branches=2", trace=trace)
    assert set(trace.values) == {"block1.join"}  # branch 1 did not run
    assert trace.values["block1.join"].shape == (2, 4, 16, 16)


def test_hooks_of_nodes_see_units_and_joins_and_may_change_them(net, x):
    join = next(name for name in net.wiring.joins if name in {n.name for n in net.wiring.alive()})
    unit = net.wiring.alive()[0].name
    seen: list[tuple[str, torch.Tensor]] = []
    handles = [net.register_node_hook(node, lambda *told: seen.append(told)) for node in (unit, join)]
    trace = pp.Trace(frozenset([unit, join]))
    expected = net(x, trace=trace)
    assert [name for name, _ in seen] == [unit, join]
    assert all(torch.equal(value, trace.values[name]) for name, value in seen)
    for handle in handles:
        handle.remove()
    handle = net.register_node_hook(join, lambda _, value: value * 0)
    assert not torch.equal(net(x), expected)
    assert not torch.equal(net.forward_features(x), trace.values[join]) or not trace.values[join].any()
    assert torch.equal(pp.extract(net, "whole")(x), expected)  # which has no hooks
    handle.remove()
    assert torch.equal(net(x), expected)
    assert len(seen) == 2


def test_class_activation_maps_by_a_hook(x):
    """Grad-CAM of a join, which has no module."""
    net = randomise_norms(pp.create_model("fractalnet16_small", filters=(4, 8), seed=0)).eval()
    kept: list[torch.Tensor] = []
    net.register_node_hook("block2.join4", lambda _, maps: kept.append(maps))
    score = net(x)[:, 3].sum()
    (grad,) = torch.autograd.grad(score, kept)
    maps = (grad * kept[0]).sum(1)
    assert maps.shape == (2, 4, 4)
    bias = part(net, "head.classifier").bias[3]  # the head is linear, so the maps add up to the score without bias
    torch.testing.assert_close(maps.sum(), score - 2 * bias)


def test_containers_warn_that_they_are_never_called(x):
    net = pp.create_model("fractalnet16_small", filters=(4, 8), seed=0)
    with pytest.raises(NotImplementedError, match="only contains other modules"):
        part(net, "block1")(x)
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        with pytest.warns(UserWarning, match="never runs; use net.register_node_hook"):
            getattr(part(net, "block1"), register)(lambda *_: None)
    with pytest.raises(ValueError, match=r"node = 'block1.join': .*did you mean block1.join"):
        net.register_node_hook("block1.join", lambda *_: None)


def test_a_copy_is_a_copy(net, x):
    with torch.inference_mode():
        twin = copy.deepcopy(net)
        assert torch.equal(twin(x), net(x))
        next(twin.parameters()).add_(1.0)
        assert not torch.equal(twin(x), net(x))


def test_the_parts_of_a_conv_unit():
    assert ConvUnit(3, 4, order="conv-act-norm").parts == ("conv", "act", "norm")
    assert ConvUnit(3, 4, order="conv-drop-norm-act", dropout=0.1).parts == ("conv", "drop", "norm", "act")
    assert ConvUnit(3, 4, order="conv-drop-norm-act").parts == ("conv", "norm", "act")
    with pytest.raises(ValueError, match="conv, norm, act, drop"):
        ConvUnit(3, 4, order="conv-relu")
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        ConvUnit(3, 4, dropout=1.0)
    with pytest.raises(ValueError, match="element, channel"):
        ConvUnit(3, 4, dropout_kind="row")
