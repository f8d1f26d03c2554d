"""Many choices answer together as each of them does alone, also with recalibrated statistics."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from conftest import part, randomise_norms
from polypath.analysis.scoring import score
from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate, shared_statistics
from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.profiling.cost import PathMacs, cost
from polypath.search.many import ManyPaths

NETS: Mapping[str, Family] = {
    "crescendonet": CrescendoNet(widths=(4, 4), scale=2, hidden=(4,)),
    "fractalnet": FractalNet(filters=(4,), columns=3),
    "resnet": ResNet(blocks=(1, 1), width=4, exits=(1,)),
    "gates": RecursiveResNet(blocks=(2,), loops=(2,), width=4, gates="recursive"),
    "one norm for all loops": RecursiveResNet(blocks=(2,), loops=(2,), width=4, norm="shared"),
}


def batches(count: int, images: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(images, 3, 8, 8, generator=g), torch.randint(10, (images,), generator=g)) for _ in range(count)
    ]


@pytest.mark.parametrize("recalibrated", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_they_answer_as_each_does_alone(name: str, recalibrated: bool) -> None:
    net = randomise_norms(NETS[name].build(0)).eval()
    choices = list(ChoiceSpace(net.wiring))[::2]
    stats = shared_statistics(net, choices, batches(2, 4, 1), 8) if recalibrated else None
    x, y = batches(1, 20, 2)[0]
    first = score(net, {"": choices[0]}, [(x, y)], stats=stats, keep_logits=True)[""].logits
    assert first is not None
    with torch.no_grad():  # so that some are right and some are not
        part(net, "head.classifier").bias.sub_(first.mean(0))
    y = (first - first.mean(0)).argmax(1)
    images = [(x, y)]
    found = ManyPaths(net, choices, stats).right(x, y)
    alone = score(net, {str(p): p for p in choices}, images, stats=stats, keep_logits=True)
    for k, p in enumerate(choices):
        logits = alone[str(p)].logits
        assert logits is not None
        assert found[k].tolist() == (logits.argmax(1) == y).tolist()
    assert len({tuple(row) for row in found.tolist()}) > 1


@pytest.mark.parametrize("name", NETS)
def test_statistics_of_many_are_those_of_each(name: str) -> None:
    net = randomise_norms(NETS[name].build(0)).eval()
    choices = list(ChoiceSpace(net.wiring))[::5]
    together = shared_statistics(net, choices, batches(2, 5, 1), 10)
    for p in choices:
        alone = recalibrate(net, [p], batches(2, 5, 1), 10)[p]
        assert together[p].keys() == alone.keys()
        for norm, pair in alone.items():
            for mine, other in zip(together[p][norm], pair, strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_a_norm_that_a_path_meets_twice_averages_its_visits() -> None:
    net = randomise_norms(NETS["one norm for all loops"].build(0)).eval()
    (one,) = once = batches(1, 16, 1)
    p = net.paths("loops=2")
    stats = shared_statistics(net, [p, net.paths("loops=1")], once, 16)
    norm = net.get_submodule("group1.block2.unit1.norm")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    seen: list[torch.Tensor] = []
    norm.train().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        net(one[0], paths=p)
    assert len(seen) == 2
    torch.testing.assert_close(stats[p]["group1.block2.unit1.norm"][0], (seen[0] + seen[1]) / 2)
    assert not torch.equal(
        stats[p]["group1.block2.unit1.norm"][0], stats[net.paths("loops=1")]["group1.block2.unit1.norm"][0]
    )


def test_views_of_an_image_are_averaged() -> None:
    net = randomise_norms(NETS["resnet"].build(0)).eval()
    (x, y), *_ = batches(1, 6, 3)
    choices = [Paths()]
    with torch.no_grad():
        wanted = net(x).unflatten(0, (3, 2)).mean(1).argmax(1) == y[:3]
    assert ManyPaths(net, choices).right(x, y[:3], views=2)[0].tolist() == wanted.tolist()


def test_costs_are_those_of_the_values() -> None:
    net = CrescendoNet(widths=(4, 4), scale=2, hidden=(4,)).build(0)
    space, counted = ChoiceSpace(net.wiring), PathMacs(net)
    alone = {p: cost(net, p, size=8).macs for p in space}
    assert ManyPaths(net, [Paths()]).macs(counted, (8, 8)) == alone[Paths()]
    by_node = counted.by_node(Paths(), (8, 8))
    blocks = [sum(n for name, n in by_node.items() if name.startswith(f"block{k}.")) for k in (1, 2)]
    head = alone[Paths()] - sum(blocks)
    every = ManyPaths(net, list(space)).macs(counted, (8, 8))
    assert every == blocks[0] + 3 * blocks[1] + 9 * head
    assert every < sum(alone.values())
