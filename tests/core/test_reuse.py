"""Paths in turn: each gives the same output as alone, and runs only nodes that earlier paths have not run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import polypath as pp
from contracts.small import FORMS, images, small_net, two_paths
from polypath.core.batchnorm import applied
from polypath.core.builder import NetBuilder
from polypath.core.reuse import in_turn, increments, parts_of, version_of
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.profiling.cost import macs_in_turn


@pytest.mark.parametrize("name", FORMS)
@torch.inference_mode()
def test_each_step_answers_as_its_path_alone(name):
    net = small_net(name).eval()
    x = images(net)
    choices = [*reversed(net.named_paths()), *two_paths(net)]
    found = list(in_turn(net, x, choices))
    assert len(found) == len(choices)
    for text, logits in zip(choices, found, strict=True):
        assert torch.equal(logits, net(x, paths=text)), text


def prefixes() -> pp.PathNet:
    """Three stages, then a switch whose operands are nested."""
    b, ends, z = NetBuilder(), {}, "input"
    for i in (1, 2, 3):
        z = b.add(f"stage{i}", z, nn.Conv2d(3 if i == 1 else 4, 4, 3, padding=1), depth=1)
        ends[str(i)] = z
    z = b.join("stop", ends, kind="switch")
    z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
    z = b.add("head.flatten", z, nn.Flatten())
    return b.net(b.add("head.linear", z, nn.Linear(4, 5)))


def test_a_prefix_runs_once_and_is_freed_after_its_last_reader():
    net = prefixes().eval()
    ran: list[str] = []
    for node in ("stage1", "stage2", "stage3"):
        net.register_node_hook(node, lambda name, _: ran.append(name))
    texts = ["stop=1", "stop=2", "whole"]
    list(in_turn(net, images(net), texts))
    assert ran == ["stage1", "stage2", "stage3"]
    parts = [part for _, part in parts_of(net, texts)]
    assert [part.reads for part in parts] == [
        (("input", "input"),),
        (("stage1", "stage1@1"),),
        (("stage2", "stage2@2"),),
    ]
    assert [part.leaves for part in parts] == [(("stage1", "stage1@1"),), (("stage2", "stage2@2"),), ()]
    macs = macs_in_turn(net, texts, 16)
    convs = [16 * 16 * 9 * 4 * 3, *[16 * 16 * 9 * 4 * 4] * 2]
    assert macs == [conv + 4 * 5 for conv in convs]
    assert sum(macs) <= 1.15 * pp.cost(net, size=16).macs


def test_the_same_path_again_runs_nothing():
    net = prefixes().eval()
    x = images(net)
    first, again = in_turn(net, x, ["stop=2", "stop=2"])
    assert torch.equal(first, again)
    assert macs_in_turn(net, ["stop=2", "stop=2"], 16)[1] == 0


def test_values_that_an_earlier_choice_changes_are_not_shared():
    net = FractalNet(filters=(4, 8), columns=2).build(seed=0).eval()
    _, (_, whole) = parts_of(net, ["column=1", "whole"])
    assert "block1.column1.unit1" not in whole.nodes  # reads the image in both
    assert "block2.column1.unit1" in whole.nodes  # reads a join in the second


def test_different_statistics_keep_paths_apart_and_equal_ones_do_not():
    net = FractalNet(filters=(4, 8), columns=2).build(seed=0).eval()
    x, paths = images(net), [net.paths("column=1"), net.paths("whole")]
    stats = pp.recalibrate(net, paths, [(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)),)])
    for choice, logits in zip(paths, in_turn(net, x, paths, stats=stats), strict=True):
        with applied(net, stats[choice]):
            assert torch.equal(logits, net(x, paths=choice))
    _, (_, whole) = parts_of(net, paths, stats)
    assert "block1.column1.unit1" not in whole.nodes  # sees the same images, so it has the same statistics
    mean, _ = stats[paths[1]]["block1.column1.unit1.norm"]
    mean += 1.0
    _, (_, whole) = parts_of(net, paths, stats)
    assert "block1.column1.unit1" in whole.nodes


def test_loops_nest_and_norms_of_later_loops_do_not_matter():
    net = RecursiveResNet(blocks=(2, 1), loops=(3, 1), width=4, gates="none").build(seed=0).eval()
    texts = ["loops=1", "loops=2", "whole"]
    paths = [net.paths(text) for text in texts]
    stats = pp.recalibrate(net, paths, [(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)),)])
    x = images(net)
    for choice, logits in zip(paths, in_turn(net, x, paths, stats=stats), strict=True):
        with applied(net, stats[choice]):
            assert torch.equal(logits, net(x, paths=choice))
    assert macs_in_turn(net, paths, 16, stats=stats)[2] < 0.4 * pp.cost(net, size=16).macs


def test_gates_are_shared_with_all_that_they_decide():
    net = RecursiveResNet(blocks=(2, 1), loops=(2, 1), width=4, gates="recursive").build(seed=0).eval()
    x = images(net)
    first, again = in_turn(net, x, [None, None])
    assert torch.equal(first, net(x))
    assert torch.equal(first, again)
    assert macs_in_turn(net, [None, None], 16)[1] == 0
    assert macs_in_turn(net, [None], 16)[0] == pp.cost(net, size=16).macs


def test_values_are_not_reused_where_it_is_not_worth_it():
    net = prefixes()
    wirings = [net.wiring.prune(net.paths(text)) for text in ("stop=1", "stop=2", "whole")]
    asked = []
    found = increments(wirings, worth=lambda k, skipped: asked.append((k, sorted(skipped))) or k == 2)
    assert asked == [(1, ["stage1"]), (2, ["stage1", "stage2"])]
    assert found[1].nodes >= {"stage1", "stage2"}
    assert found[2].reads == (("stage2", "stage2@2"),)


def test_in_training_shared_nodes_run_once_and_learn_from_all_paths():
    net = FractalNet(filters=(4, 8), columns=2).build(seed=0).train()
    losses = [logits.square().sum() for logits in in_turn(net, images(net, 4), ["column=1", "whole"])]
    counts = {key: int(count) for key, count in net.named_buffers() if key.endswith("num_batches_tracked")}
    assert counts.pop("block1.column1.unit1.norm.num_batches_tracked") == 1
    assert counts.pop("block2.column1.unit1.norm.num_batches_tracked") == 2
    assert set(counts.values()) == {1}
    torch.stack(losses).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_norm_that_is_a_node_keeps_paths_apart():
    wiring = ResNet(blocks=(1, 1), width=4, exits=(1,)).build(seed=0).wiring
    banks = [{"head.exit1.norm": (torch.full((4,), mean), torch.ones(4))} for mean in (0.0, 1.0)]
    one, other = (version_of(wiring, bank) for bank in banks)
    assert one("head.exit1.norm", None) != other("head.exit1.norm", None)
    assert one("head.exit1.classifier", None) == other("head.exit1.classifier", None)


def test_no_choices_run_nothing():
    net = small_net(next(iter(FORMS))).eval()
    assert list(in_turn(net, images(net), [])) == parts_of(net, []) == []
