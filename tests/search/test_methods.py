"""A beam on spaces whose best choices are known, draws, fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.families.crescendonet import CrescendoNet
from polypath.families.resnet import ResNet
from polypath.search.front import best, box_of, front, gain, volume
from polypath.search.methods import beam, drawn


def p(text: str) -> Paths:
    return Paths(((text, ("1",)),))


def space_of(blocks: int = 6) -> ChoiceSpace:
    return ChoiceSpace(ResNet(blocks=(blocks,), width=4).build(0).wiring)


def cost(choice: Paths) -> float:
    """A block costs 2, a shortcut alone 1."""
    return 100 + sum(-1.0 for labels in choice.values() if labels == ("L",))


def errors(choices: Sequence[Paths]) -> list[float]:
    """Each block that is left out costs its number; one without its shortcut costs 50."""
    found = []
    for choice in choices:
        lost = {"L": 0.0, "R": 50.0}
        blocks = ((int(name.split("block")[1].split(".")[0]), labels[0]) for name, labels in choice.items())
        found.append(10 + sum(number if label == "L" else lost[label] for number, label in blocks))
    return found


def test_a_beam_finds_the_front_of_a_small_space() -> None:
    space = space_of()
    looked: list[Paths] = []

    def evaluate(choices: Sequence[Paths]) -> list[float]:
        looked.extend(choices)
        return errors(choices)

    found = beam(space, evaluate, cost, start=[Paths()], width=4, most=700, classes=10, generator=torch.Generator())
    every = dict(zip(space, errors(list(space)), strict=True))
    assert len(every) == 3**6
    assert list(found) == looked == list(dict.fromkeys(looked))
    assert len(looked) < len(every) / 2
    costs = {choice: cost(choice) for choice in every}
    exact = [(costs[c], every[c]) for c in front(every, costs, 100, 10)]
    assert [(costs[c], found[c]) for c in front(found, costs, 100, 10)] == exact
    assert len(exact) == 7


def test_a_beam_looks_at_no_more_than_it_may_and_the_same_seed_gives_the_same() -> None:
    def looked(seed: int, most: int) -> dict[Paths, float]:
        generator = torch.Generator().manual_seed(seed)
        return beam(space_of(12), errors, cost, start=[Paths()], width=3, most=most, classes=10, generator=generator)

    assert len(looked(0, 100)) == 100
    assert list(looked(0, 100)) == list(looked(0, 100))
    assert list(looked(0, 100)) != list(looked(1, 100))
    assert list(looked(0, 1)) == [Paths()]


def test_draws_are_different_choices() -> None:
    space = space_of(4)
    found = drawn(space, 50, torch.Generator().manual_seed(0))
    assert len(set(found)) == len(found) == 50
    assert found == drawn(space, 50, torch.Generator().manual_seed(0))
    assert found != drawn(space, 50, torch.Generator().manual_seed(1))
    assert set(drawn(space, 1000, torch.Generator())) == set(space)


def test_the_front_and_a_few_of_it() -> None:
    a, b, c, d, e = (p(name) for name in "abcde")
    off = {a: 50.0, b: 30.0, c: 29.9, d: 10.0, e: 10.0}
    costs = {a: 1.0, b: 2.0, c: 2.01, d: 4.0, e: 5.0}
    assert front(off, costs, 9, 10) == [a, b, c, d]
    assert front(off, costs, 3, 10) in ([a, b, d], [a, c, d])
    assert best(off, costs, 5, 10) == [a, b, c, d, e]
    assert len(best(off, costs, 2, 10)) == 2


def test_gains_by_hand() -> None:
    a, b = p("a"), p("b")
    right = {a: np.arange(100) < 60, b: np.arange(100) < 80}
    costs = {a: 1.0, b: 1.0}
    box = box_of([1.0, 1.0], 10)
    assert box == (0.5, 2.0, 90.0)
    one, other, between = gain([b], [a], right, costs, box, draws=200)
    assert one == pytest.approx(0.5 * 70 / 90)
    assert other == pytest.approx(volume([a], {a: 40.0}, costs, box))
    assert between.value == pytest.approx(one - other)
    assert 0 < between.low < between.value < between.high
    same = gain([a], [a], right, costs, box, draws=50)[2]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)  # the same images are drawn for both


def test_a_network_of_one_choice_has_no_neighbours() -> None:
    space = ChoiceSpace(CrescendoNet(widths=(4,), scale=1, hidden=(4,)).build(0).wiring)
    assert space.count == 1
    found = beam(
        space, lambda choices: [1.0] * len(choices), lambda _: 1.0,
        start=[Paths()], width=2, most=9, classes=2, generator=torch.Generator(),
    )  # fmt: skip
    assert list(found) == [Paths()]
