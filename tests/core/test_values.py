"""Many choices run together: the same outputs, each value computed once, few values held at a time."""

from __future__ import annotations

import weakref
from collections import Counter

import pytest
import torch
from spaces import NETS

from conftest import randomise_norms
from contracts.small import FORMS, small_net
from contracts.small import images as images_of
from polypath.core.choices import ChoiceSpace
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.values import from_the_input, run_values, values_of
from polypath.families.crescendonet import CrescendoNet
from polypath.families.resnet import ResNet

ENDS = ("block1.pool", "block2.pool", "head.pool")  # readers of a block's end


def images(net: PathNet, n: int = 2) -> torch.Tensor:
    return torch.randn(n, net.in_chans, 8, 8, generator=torch.Generator().manual_seed(0))


def every(net: PathNet) -> list[Paths]:
    return sorted(ChoiceSpace(net.wiring), key=lambda p: from_the_input(net.wiring, p))


@pytest.mark.parametrize("name", [*NETS, "survival"])
@torch.no_grad()
def test_answers_are_those_of_each_choice_to_the_bit(name: str) -> None:
    spec = ResNet(blocks=(1, 1), width=4, survival=0.5) if name == "survival" else NETS[name]
    net = randomise_norms(spec.build(0)).eval()
    x, choices = images(net), every(net)
    answered = dict(run_values(net, x, values_of(net.wiring, choices)))
    assert list(answered) == list(range(len(choices)))
    for k, p in enumerate(choices):
        assert torch.equal(answered[k], net(x, paths=p))


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_drawn_choices_of_every_family(name: str) -> None:
    net = small_net(name).eval()
    space, generator = ChoiceSpace(net.wiring), torch.Generator().manual_seed(0)
    choices = [space.draw(generator) for _ in range(4)]
    assert all(space.is_fixed(p) and Paths.of(net.wiring, p) == p for p in choices)
    x = images_of(net, 2)
    for k, logits in run_values(net, x, values_of(net.wiring, choices)):
        assert torch.equal(logits, net(x, paths=choices[k]))


@torch.no_grad()
def test_gates_may_decide_in_some_choices() -> None:
    net = randomise_norms(NETS["gates"].build(0)).eval()
    choices = [net.paths(text) for text in ("whole", "loops=1", "whole")]
    x = images(net, 6)
    values = values_of(net.wiring, choices)
    assert values.outputs[0] == values.outputs[2]
    for k, logits in run_values(net, x, values):
        assert torch.equal(logits, net(x, paths=choices[k]))


@pytest.mark.parametrize("blocks", [2, pytest.param(3, marks=pytest.mark.slow)])
@torch.no_grad()
def test_blocks_are_evaluated_as_often_as_their_inputs_differ(blocks: int) -> None:
    """15 + 225 + 3,375 for three blocks of four branches."""
    net = CrescendoNet(widths=(2,) * blocks, scale=4, hidden=(4,)).build(0).eval()
    choices = every(net)
    ran: Counter[str] = Counter()
    for node in net.wiring.nodes:
        net.register_node_hook(node.name, lambda name, _: ran.update([name]))
    answers = sum(1 for _ in run_values(net, images(net, 1), values_of(net.wiring, choices)))
    ends = [ran[name] for name in ENDS if name in ran]
    assert ends == [15**k for k in range(1, blocks + 1)]
    assert answers == 15**blocks
    assert [ran[f"block{k}.branch4.unit4"] for k in range(1, blocks + 1)] == [15**k for k in range(blocks)]


@torch.no_grad()
def test_few_values_are_held() -> None:
    net = CrescendoNet(widths=(2, 2, 2), scale=3, hidden=(4,)).build(0).eval()
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def note(_: str, value: torch.Tensor) -> None:
        nonlocal most
        alive[:] = [ref for ref in alive if ref() is not None] + [weakref.ref(value)]
        most = max(most, len(alive))

    for node in net.wiring.nodes:
        net.register_node_hook(node.name, note)
    choices = every(net)
    assert len(choices) == 7**3
    for _ in run_values(net, images(net), values_of(net.wiring, choices)):
        pass
    assert most <= 3 * (3 + 2)  # a block's branches, its end and the reader of that


def test_choices_are_sorted_by_their_prefix_from_the_input() -> None:
    net = NETS["crescendonet"].build(0)
    places = [from_the_input(net.wiring, net.paths(text)) for text in ("block2.join=1", "block1.join=1", "whole")]
    assert places == [(("1", "2"), ("1",)), (("1",), ("1", "2")), (("1", "2"), ("1", "2"))]
