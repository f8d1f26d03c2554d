"""Choices by name: which are legal, which are equal, and the errors of illegal ones."""

from __future__ import annotations

import pytest

import polypath as pp
from polypath.core.builder import WiringBuilder


@pytest.fixture(scope="module")
def crescendo():
    return pp.create_model("crescendonet_32", seed=0)


@pytest.fixture(scope="module")
def fractal():
    return pp.create_model("fractalnet16_small", seed=0)


def test_the_same_branches_in_every_block_or_one_list_a_block(crescendo):
    assert crescendo.paths("branches=1,3") == crescendo.paths("branches=3,1/1,3/1,3")
    per_block = crescendo.paths("branches=1,3/2/1,2,3,4")
    assert per_block == crescendo.paths("block1.join=1,3;block2.join=2")
    assert str(per_block) == "block1.join=1,3;block2.join=2"


def test_joins_with_all_operands_are_not_part_of_the_value(crescendo):
    whole = crescendo.paths("branches=1,2,3,4")
    assert whole == crescendo.paths("whole") == pp.Paths()
    assert hash(whole) == hash(pp.Paths())
    assert whole != crescendo.paths("branches=1,2,3")


def test_dead_joins_are_not_part_of_the_value(fractal):
    """Under column 1 the inner joins are dead, whatever the text chooses for them."""
    said = ";".join(f"block{b}.join4=1;block{b}.join2=2" for b in range(1, 5))
    assert fractal.paths(said) == fractal.paths("column=1")


def test_text_round_trips_for_every_named_path(crescendo, fractal):
    for net in (crescendo, fractal):
        for paths in net.named_paths().values():
            assert net.paths(str(paths)) == paths


def test_named_paths_are_the_papers(crescendo, fractal):
    assert len(crescendo.named_paths()) == 13  # CrescendoNet, Table II
    assert list(fractal.named_paths()) == ["whole", "column=3", "column=2", "column=1"]


def test_a_choice_is_a_mapping_and_hashable(crescendo):
    paths = crescendo.paths("block2.join=4,2")
    assert dict(paths) == {"block2.join": ("2", "4")}
    assert {paths: 1}[crescendo.paths("branches=1,2,3,4/2,4/1,2,3,4")] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("branches=5", "1, 2, 3, 4"),
        ("branches=0", "1, 2, 3, 4"),
        ("branches=x", "1, 2, 3, 4"),
        ("branches=1/2", "3 lists separated by '/'"),
        ("branches=1,1", "twice"),
        ("branch=1", "branches"),
        ("column=1", "branches"),
        ("block1.join=9", "1, 2, 3, 4"),
        ("block4.join=1", "block1.join"),
        ("block1.join=", "key=value"),
        ("branches=1;block1.join=2", "chosen twice"),
        ("", "key=value"),
        ("everything", "whole"),
    ],
)
def test_an_impossible_choice_lists_the_legal_ones(crescendo, text, told):
    with pytest.raises(ValueError, match=told):
        crescendo.paths(text)


@pytest.mark.parametrize("text", ["column=0", "column=4", "column=1,2", "column=-1"])
def test_an_impossible_column_lists_the_legal_ones(fractal, text):
    with pytest.raises(ValueError, match="1, 2, 3"):
        fractal.paths(text)


def test_switch_and_concat_joins_refuse_what_they_cannot_do():
    b = WiringBuilder()
    switch = b.join("s", {"1": b.unit("a", b.input), "2": b.unit("b", b.input)}, "switch")
    wiring = b.wiring(b.join("c", {"x": switch, "y": b.unit("d", b.input)}, "concat"))
    with pytest.raises(ValueError, match="exactly one of 1, 2"):
        pp.Paths.of(wiring, {"s": ("1", "2")})
    with pytest.raises(ValueError, match="join 'c' is a concat, so all its operands x, y must run"):
        pp.Paths.of(wiring, {"c": ("x",)})
    assert pp.Paths.of(wiring, {"s": ("2",)}) == pp.Paths()  # the default of a switch is its last operand
    assert pp.Paths.of(wiring, {"s": ("1",)}) != pp.Paths()
