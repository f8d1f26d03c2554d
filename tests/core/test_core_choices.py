"""The fixed choices of a wiring: counts, lists, random draws, neighbours."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from spaces import NETS

from polypath.core.choices import ChoiceSpace
from polypath.core.nodes import Join, Operand, Unit
from polypath.core.paths import Paths
from polypath.core.wiring import INPUT, Wiring
from polypath.families.crescendonet import CrescendoNet
from polypath.families.resnet import ResNet

COUNTS = {"crescendonet": 9, "fractalnet": 19, "tied": 11, "resnet": 27, "exits": 3 + 9 + 27, "gates": 3 * (1 + 3 + 9)}


def space_of(name: str) -> ChoiceSpace:
    return ChoiceSpace(NETS[name].build(0).wiring)


@pytest.mark.parametrize("name", NETS)
def test_the_choices_are_all_different_and_fix_the_gates(name: str) -> None:
    space = space_of(name)
    options = {
        join.name: [
            labels
            for size in range(1, len(join.labels) + 1)
            for labels in itertools.combinations(join.labels, size)
            if size == 1 or join.kind != "switch"
        ]
        for join in space.wiring.joins.values()
    }
    combined = itertools.product(*([(name, labels) for labels in sets] for name, sets in options.items()))
    every = {Paths.of(space.wiring, dict(choice)) for choice in combined}
    listed = list(space)
    assert len(listed) == len(set(listed)) == space.count == COUNTS[name]
    assert set(listed) == every
    assert all(space.is_fixed(p) for p in listed)


def test_counts_are_exact_where_listing_is_impossible() -> None:
    assert ChoiceSpace(CrescendoNet(widths=(4, 4, 4), hidden=(4,)).build(0).wiring).count == 15**3
    assert ChoiceSpace(ResNet(depth=110, width=4).build(0).wiring).count == 3**54


def test_draws_are_uniform_and_use_the_generator() -> None:
    space = space_of("fractalnet")
    found = Counter(space.draw(torch.Generator().manual_seed(seed)) for seed in range(1900))
    assert found.keys() == set(space)
    assert 60 < min(found.values()) <= max(found.values()) < 140  # 100 each, within four standard deviations


@pytest.mark.parametrize("name", ["crescendonet", "fractalnet", "exits", "gates"])
def test_neighbours_differ_at_one_join_and_reach_everything(name: str) -> None:
    space = space_of(name)
    start = space.fixed(Paths())
    seen, todo = {start}, [start]
    while todo:
        for p in space.neighbours(todo.pop()):
            if p not in seen:
                seen.add(p)
                todo.append(p)
    assert seen == set(space)
    assert start not in space.neighbours(start)


def test_neighbours_by_hand() -> None:
    space = space_of("crescendonet")
    texts = {str(p) for p in space.neighbours(Paths.of(space.wiring, {"block1.join": ["1"]}))}
    assert texts == {"whole", "block1.join=1;block2.join=1", "block1.join=1;block2.join=2"}
    gated = space_of("gates")
    assert str(gated.fixed(Paths())) == "group1.block2.loops=2"


def test_too_many_operands_are_refused() -> None:
    nodes = [Unit(f"u{i}", INPUT, f"m{i}") for i in range(13)]
    join = Join("join", "sum", tuple(Operand(node.name, str(i)) for i, node in enumerate(nodes)))
    with pytest.raises(ValueError, match="13 operands"):
        ChoiceSpace(Wiring((*nodes, join), "join"))
