"""Exits: heads after stages, on any network with stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import polypath as pp
from contracts.small import FORMS, images, small_spec
from polypath.core.reuse import in_turn
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.fusenet import MergeAndRun
from polypath.families.resnet import ResNet
from polypath.profiling.cost import macs_in_turn

WITH_STAGES = [name for name in FORMS if len(small_spec(name).stages()) > 1]


@pytest.mark.parametrize("name", WITH_STAGES)
@torch.inference_mode()
def test_any_network_with_stages_can_stop_after_them(name):
    spec = small_spec(name)
    plain = spec.build(seed=0).eval()
    stages = len(plain.stage_nodes)
    net = replace(spec, exits=tuple(range(1, stages))).build(seed=0).eval()
    x = images(net)
    net.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(net(x), plain(x))  # the network itself does not change
    assert torch.equal(net.forward_features(x), plain.forward_features(x))
    assert net.num_features == plain.num_features
    assert net.num_classes == plain.num_classes
    texts = [*net.path_set("exits")]
    assert texts == [*(f"exit={n}" for n in range(1, stages)), "whole"]
    assert set(texts) <= set(net.named_paths())
    macs = [pp.cost(net, text, size=x.shape[-1]).macs for text in texts]
    assert macs == sorted(macs)
    for text, logits in zip(texts, in_turn(net, x, texts), strict=True):
        assert torch.equal(logits, net(x, paths=text))
    first = net(x, paths="exit=1")
    assert torch.equal(first, pp.extract(net, "exit=1")(x))
    assert torch.allclose(first, pp.fuse(net, "exit=1")(x), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "spec", [ResNet(depth=20, exits=(1, 2)), CrescendoNet(exits=(1, 2)), FractalNet(exits=(2, 3, 4))]
)
def test_all_exits_together_cost_little_more_than_the_whole(spec):
    net = spec.build(seed=0)
    assert sum(macs_in_turn(net, [*net.path_set("exits")])) <= 1.15 * pp.cost(net).macs


def test_an_exit_is_saved_loaded_and_extracted_as_any_path(tmp_path):
    net = ResNet(depth=8, width=16, exits=(1, 2), num_classes=5).build(seed=0).eval()
    x = images(net)
    pp.save(net, tmp_path / "net")
    again = pp.load(tmp_path / "net")
    child = pp.extract(again, "exit=1")
    pp.save(child, tmp_path / "child")
    child = pp.load(tmp_path / "child")
    assert torch.equal(child(x), net(x, paths="exit=1"))
    assert list(child.named_paths()) == ["whole"]
    assert child.get_classifier() is child.get_submodule("head.exit1.classifier")
    assert child.num_features == 16
    assert list(child.stage_nodes) == list(net.stage_nodes)[:1]
    with pytest.raises(
        ValueError,
        match="exit = '2': must be a stage with an exit; these stages are none, since this network was extracted",
    ):
        child.paths("exit=2")


def test_an_exit_combines_with_other_choices():
    net = FractalNet(filters=(4, 8), columns=2, exits=(1,)).build(seed=0).eval()
    both = net.paths("column=1;exit=1")
    assert {node.name for node in net.wiring.alive(both)} < {
        node.name for node in net.wiring.alive(net.paths("exit=1"))
    }
    assert net.paths("column=1") == net.paths("column=1;exits=end")
    assert "exits" not in net.paths("column=2")


def test_streams_side_by_side_are_averaged_where_they_stop():
    net = MergeAndRun(depth=8, width=4, exits=(1,)).build(seed=0).eval()
    (maps, *_), x = net.forward_intermediates(images(net), intermediates_only=True), images(net)
    for layer in ("norm", "act", "pool", "flatten", "classifier"):
        maps = net.get_submodule(f"head.exit1.{layer}")(maps)
    assert torch.allclose(net(x, paths="exit=1"), maps, atol=1e-6)


def test_a_path_that_stops_early_has_the_stages_up_to_there():
    net = ResNet(depth=8, width=4, exits=(2,)).build(seed=0).eval()
    x = images(net)
    found = net.forward_intermediates(x, intermediates_only=True)
    early = net.forward_intermediates(x, paths="exit=2", intermediates_only=True)
    assert len(found) == len(net.feature_info) == len(early) + 1
    assert all(torch.equal(a, b) for a, b in zip(found, early, strict=False))


def test_resetting_the_classifier_replaces_every_exit():
    net = ResNet(depth=8, width=4, exits=(1,)).build(seed=0).eval()
    net.reset_classifier(3)
    x = images(net)
    assert net(x).shape == net(x, paths="exit=1").shape == (3, 3)
    assert net.pretrained_cfg["classifier"] == ("head.exit1.classifier", "head.classifier")
    net.reset_classifier(0)
    assert net(x, paths="exit=1").shape == (3, 4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ResNet(depth=8, width=4, exits=(3,)), r"exits = \(3,\): 3 must be one of the stages 1 to 2 \("),
        (ResNet(depth=8, width=4, exits=(2, 1)), "in ascending order"),
        (ResNet(depth=8, width=4, exits=(1, 1)), "must list each stage once"),
        (CrescendoNet(widths=(4,), hidden=(4,), exits=(1,)), "must be empty, .* this wiring has 1 stages"),
    ],
)
def test_exits_that_make_no_sense_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        spec.build()


def test_exit_zero_and_unknown_exits_are_refused():
    with pytest.raises(
        ValueError, match=r"ResNet\.exits = \(0,\): must be a list in which each entry is a whole number of at"
    ):
        ResNet(exits=(0,))
    net = ResNet(depth=8, width=4, exits=(1,)).build(seed=0)
    with pytest.raises(ValueError, match="exit = '2': must be a stage with an exit; these stages are 1"):
        net.paths("exit=2")
