"""Samplers at extreme rates, their guarantee of a survivor, and their frequencies."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from polypath.core.builder import WiringBuilder
from polypath.core.paths import Paths
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.training import sampling


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def fractal():
    return FractalNet(filters=(4, 8), columns=3).build(seed=0)


@pytest.fixture(scope="module")
def crescendo():
    return CrescendoNet(widths=(4, 4, 4), hidden=(8,)).build(seed=0)


def residual(survival=(1.0, 0.5)):
    b = WiringBuilder()
    z = b.unit("stem", b.input)
    for block in (1, 2):
        branch = b.unit(f"block{block}.branch", z)
        rates = {"shortcut": survival[0], "branch": survival[1]}
        z = b.join(f"block{block}.sum", {"shortcut": z, "branch": branch}, "sum", survival=rates)
    return b.wiring(z)


def alive(wiring, paths: Paths, join: str) -> tuple[str, ...]:
    return paths.get(join, wiring.joins[join].labels)


# --- local ---------------------------------------------------------------------------------------------------


def test_operands_have_rates_of_their_own(fractal):
    """With rates 1, 0 and 0.5 column 1 is never drawn at a join that column 2 ends at, and column 3 half the time."""
    rates, g = sampling.rates_by_label(fractal.wiring, 0.15, (1.0, 0.0, 0.5)), generator()
    assert rates == {"1": 1.0, "2": 0.0, "3": 0.5}
    drawn = [sampling.local_drop_path(fractal.wiring, rates, g) for _ in range(400)]
    assert {"1" in alive(fractal.wiring, p, "block1.join4") for p in drawn} == {False}
    assert {"2" in alive(fractal.wiring, p, join) for p in drawn for join in ("block1.join2", "block2.join4")} == {True}
    assert 160 < sum("3" in alive(fractal.wiring, p, "block1.join4") for p in drawn) < 240
    assert sampling.rates_by_label(fractal.wiring, 0.15, ()) == 0.15
    with pytest.raises(ValueError, match="must have length 3, one rate for each of 1, 2, 3"):
        sampling.rates_by_label(fractal.wiring, 0.15, (0.1, 0.2))
    with pytest.raises(ValueError, match="operand '3' has no rate"):
        sampling.local_drop_path(fractal.wiring, {"1": 0.1, "2": 0.1}, g)


def test_equal_rates_of_operands_draw_what_one_rate_draws(fractal):
    each = sampling.rates_by_label(fractal.wiring, 0.0, (0.15, 0.15, 0.15))
    pairs = [[sampling.local_drop_path(fractal.wiring, r, generator(n)) for r in (0.15, each)] for n in range(30)]
    assert all(one == other for one, other in pairs)
    assert len({one for one, _ in pairs}) > 1


def test_local_at_rate_0_is_the_whole_network(fractal):
    g = generator()
    assert all(sampling.local_drop_path(fractal.wiring, 0.0, g) == Paths() for _ in range(20))


def test_local_at_rate_1_leaves_one_operand_and_all_of_them_in_turn(crescendo):
    g = generator()
    drawn = [sampling.local_drop_path(crescendo.wiring, 1.0, g) for _ in range(400)]
    assert all(len(p[f"block{b}.join"]) == 1 for p in drawn for b in (1, 2, 3))
    counts = Counter(p["block2.join"][0] for p in drawn)
    assert set(counts) == {"1", "2", "3", "4"}
    assert all(60 < n < 140 for n in counts.values())  # 100 expected, sigma 8.7


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.95])
def test_at_least_one_operand_survives_at_every_join(fractal, rate):
    g = generator(1)
    for _ in range(200):
        paths = sampling.local_drop_path(fractal.wiring, rate, g)
        assert all(labels for _, labels in paths.choices)
        assert fractal.wiring.prune(paths).count_paths() >= 1


def test_a_block_of_four_loses_1_192_branches_at_rate_0_3(crescendo):
    """CrescendoNet §II-C prints 1.2; that one survives takes p^4 = 0.0081 off (4 * 0.3 - 0.3^4 = 1.1919)."""
    g, n = generator(2), 20_000
    labels = crescendo.wiring.joins["block1.join"].labels
    dropped = [4 - len(sampling.survivors(labels, 0.3, g)) for _ in range(n)]
    mean = sum(dropped) / n
    assert mean == pytest.approx(1.1919, abs=4 * (4 * 0.3 * 0.7 / n) ** 0.5)
    assert max(dropped) == 3


def test_blocks_are_drawn_apart_unless_asked_to_be_the_same(crescendo):
    g = generator(3)
    apart = [sampling.local_drop_path(crescendo.wiring, 0.5, g) for _ in range(50)]
    same = [sampling.local_drop_path(crescendo.wiring, 0.5, g, same=True) for _ in range(50)]

    def sets(paths):
        return {alive(crescendo.wiring, paths, f"block{b}.join") for b in (1, 2, 3)}

    assert any(len(sets(p)) > 1 for p in apart)
    assert all(len(sets(p)) == 1 for p in same)


def test_a_label_to_keep_is_never_dropped(crescendo):
    g = generator(4)
    drawn = [sampling.local_drop_path(crescendo.wiring, 0.9, g, keep="2") for _ in range(100)]
    joins = list(crescendo.wiring.joins)
    assert all("2" in alive(crescendo.wiring, p, j) for p in drawn for j in joins)
    assert any("1" not in alive(crescendo.wiring, p, j) for p in drawn for j in joins)
    full = sampling.local_drop_path(crescendo.wiring, 1.0, g, keep="2")
    assert full == crescendo.paths("branches=2")


def test_only_the_joins_asked_for_are_drawn_at(crescendo):
    g = generator(5)
    drawn = [sampling.local_drop_path(crescendo.wiring, 0.9, g, ["block2.join"]) for _ in range(30)]
    assert {name for p in drawn for name in p} == {"block2.join"}


def test_joins_that_a_drop_cuts_off_are_no_part_of_the_choice(fractal):
    g = generator(6)
    drawn = {sampling.local_drop_path(fractal.wiring, 0.9, g) for _ in range(200)}
    cut = [p for p in drawn if p.get("block1.join4") == ("1",)]
    assert cut
    assert all("block1.join2" not in p for p in cut)
    assert all(p == Paths.of(fractal.wiring, p) for p in drawn)


def test_the_same_generator_state_draws_the_same(fractal):
    a = [sampling.local_drop_path(fractal.wiring, 0.5, generator(7)) for _ in range(3)]
    assert len(set(a)) == 1
    assert sampling.local_drop_path(fractal.wiring, 0.5, generator(8)) != a[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 1.5}, "rate = 1.5"),
        ({"rate": 0.5, "joins": ["block9.join"]}, "block3.join"),
        ({"rate": 0.5, "keep": "5"}, "1, 2, 3, 4"),
    ],
)
def test_local_refuses(crescendo, arguments, words):
    with pytest.raises(ValueError) as caught:
        sampling.local_drop_path(crescendo.wiring, generator=generator(), **arguments)
    assert words in str(caught.value)


def test_the_same_set_everywhere_needs_the_same_operands(fractal):
    with pytest.raises(ValueError, match="different operands"):
        sampling.local_drop_path(fractal.wiring, 0.5, generator(), same=True)


# --- global and mixed ----------------------------------------------------------------------------------------


def test_global_is_one_column_for_the_whole_network(fractal):
    g = generator(1)
    counts = Counter(sampling.global_drop_path(fractal, g) for _ in range(600))
    assert set(counts) == {fractal.paths(f"column={c}") for c in (1, 2, 3)}
    assert all(150 < n < 250 for n in counts.values())  # 200 expected, sigma 11.5


def test_global_on_a_single_column_is_the_network():
    net = FractalNet(filters=(4,), columns=1).build(seed=0)
    assert sampling.global_drop_path(net, generator()) == Paths()


def test_global_with_norms_of_its_own_takes_the_tied_columns():
    net = FractalNet(filters=(4, 4), columns=2, own_norms=True).build(seed=0)
    drawn = {str(sampling.global_drop_path(net, generator(s))) for s in range(20)}
    assert drawn == {"tied=column1", "tied=column2"}


def test_global_needs_columns(crescendo):
    with pytest.raises(ValueError, match="crescendonet has none"):
        sampling.global_drop_path(crescendo, generator())


def test_mixed_is_global_or_local_at_its_extremes_and_half_and_half_between(fractal):
    columns = set(sampling.columns_of(fractal))
    g = generator(2)
    assert all(sampling.mixed_drop_path(fractal, 0.0, 1.0, g) in columns for _ in range(30))
    assert all(sampling.mixed_drop_path(fractal, 0.0, 0.0, g) == Paths() for _ in range(30))
    n = sum(sampling.mixed_drop_path(fractal, 0.0, 0.5, g) in columns for _ in range(1000))
    assert 435 < n < 565  # 500 expected, sigma 15.8
    with pytest.raises(ValueError, match="share = 2"):
        sampling.mixed_drop_path(fractal, 0.1, 2.0, g)


def test_one_column_a_block_differs_from_the_global_draw(fractal):
    g = generator(3)
    drawn = {sampling.one_column_a_block(fractal, g) for _ in range(200)}
    assert len(drawn) == 9
    assert set(sampling.columns_of(fractal)) < drawn
    assert all(fractal.wiring.count_paths(p) == 1 for p in drawn)


def test_mixed_a_block_is_a_column_a_block_or_local(fractal):
    g = generator(3)
    drawn = {sampling.mixed_column_a_block(fractal, 0.0, 1.0, g) for _ in range(200)}
    assert set(sampling.columns_of(fractal)) < drawn
    assert all(sampling.mixed_column_a_block(fractal, 0.0, 0.0, g) == Paths() for _ in range(30))
    n = sum(sampling.mixed_column_a_block(fractal, 0.0, 0.5, g) != Paths() for _ in range(400))
    assert 150 < n < 250
    with pytest.raises(ValueError, match="share"):
        sampling.mixed_column_a_block(fractal, 0.1, 2.0, g)


# --- the others ----------------------------------------------------------------------------------------------


def test_uniform_choices_are_equally_likely():
    wiring = CrescendoNet(widths=(4,), scale=2).build(seed=0).wiring
    g = generator(4)
    counts = Counter(alive(wiring, sampling.uniform_choice(wiring, g), "block1.join") for _ in range(900))
    assert set(counts) == {("1",), ("2",), ("1", "2")}
    assert all(240 < n < 360 for n in counts.values())  # 300 expected, sigma 14


def test_stochastic_depth_keeps_operands_with_their_survival():
    wiring, g, n = residual((1.0, 0.8)), generator(5), 2000
    drawn = [sampling.stochastic_depth(wiring, g) for _ in range(n)]
    kept = sum("branch" in alive(wiring, p, "block1.sum") for p in drawn)
    assert kept / n == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / n) ** 0.5)
    assert all("shortcut" in alive(wiring, p, j) for p in drawn for j in wiring.joins)
    assert len(set(drawn)) == 4


def test_stochastic_depth_leaves_an_operand_where_none_is_sure():
    wiring, g = residual((0.01, 0.01)), generator(6)
    assert all(
        len(alive(wiring, sampling.stochastic_depth(wiring, g), j)) >= 1 for j in wiring.joins for _ in range(50)
    )


def test_stochastic_depth_needs_survival_rates(crescendo):
    with pytest.raises(ValueError, match="survival 1"):
        sampling.stochastic_depth(crescendo.wiring, generator())


def test_groups_give_each_part_of_the_batch_its_own_choice(crescendo):
    net = crescendo.eval()
    x = torch.randn(5, 3, 16, 16, generator=generator(7))
    g = generator(8)
    logits, drawn = sampling.in_groups(net, x, 5, lambda: sampling.local_drop_path(net.wiring, 0.5, g))
    assert len(set(drawn)) > 1
    each = torch.cat([net(x[i : i + 1], paths=p) for i, p in enumerate(drawn)])
    assert torch.equal(logits, each)
    assert not torch.equal(logits, net(x))
    with pytest.raises(ValueError, match="groups = 6"):
        sampling.in_groups(net, x, 6, Paths)
