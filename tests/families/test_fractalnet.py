"""FractalNet against its paper's text and the counts of its authors' generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import polypath as pp
from conftest import part
from polypath.core.nodes import Unit
from polypath.families.fractalnet import FractalNet


def params(name, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in pp.create_model(name, **arguments).parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("fractalnet20", {}, 33_724_618),
        ("fractalnet20", {"num_classes": 100}, 33_770_788),
        ("fractalnet20_transition", {}, 38_649_034),
        ("fractalnet20", {"transitions": (2, 3, 4)}, 38_543_306),
        ("fractalnet20", {"transitions": (1, 2, 3, 4, 5)}, 38_912_202),
        ("fractalnet_ultra_5", {}, 258_292),
        ("fractalnet_ultra_10", {}, 847_716),
        ("fractalnet_ultra_20", {}, 2_125_204),
        ("fractalnet_ultra_40", {}, 4_778_820),
        ("fractalnet_ultra_80", {}, 10_184_692),
        ("fractalnet_ultra_160", {}, 21_095_076),
    ],
)
def test_parameters_to_the_digit(name, arguments, count):
    assert params(name, **arguments) == count


def test_plain_four_columns_are_76_million():
    assert params("fractalnet40") == 76_106_634


@pytest.mark.parametrize(("columns", "paths"), [(1, 1), (2, 2), (3, 5), (4, 26), (5, 677)])
def test_a_block_has_p_squared_plus_one_paths(columns, paths):
    wiring = FractalNet(filters=(4,), columns=columns).build().wiring
    assert wiring.count_paths() == paths
    assert wiring.longest() == 2 ** (columns - 1)
    assert wiring.shortest() == 1


def test_path_counts_and_depths():
    with torch.device("meta"):
        w20, w40 = (pp.create_model(n).wiring for n in ("fractalnet20", "fractalnet40"))
    assert (w20.count_paths(), w20.longest(), w20.shortest()) == (5**5, 20, 5)
    assert (w40.count_paths(), w40.longest(), w40.shortest()) == (26**5, 40, 5)
    assert sum(w20.depth_distribution().values()) == 5**5


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
def test_the_unrolled_block_is_the_expansion_rule(columns):
    """The collapsed diagram equals f_{C+1} = (f_C ∘ f_C) ⊕ conv, computed recursively with equal weights in joins."""
    spec = FractalNet(filters=(3,), columns=columns, in_chans=3, pool="after")
    net = spec.build(seed=3).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    used = dict.fromkeys(range(1, columns + 1), 0)

    def fractal(c: int, z: torch.Tensor) -> list[torch.Tensor]:
        """Operands of the last join of f_c, deepest column first; column C - c + 1 has the single conv."""
        column = columns - c + 1
        used[column] += 1
        conv = net.get_submodule(f"block1.column{column}.unit{used[column]}")(z)
        if c == 1:
            return [conv]
        half = torch.stack(fractal(c - 1, z)).mean(0)
        return [*fractal(c - 1, half), conv]

    expected = nn.functional.max_pool2d(torch.stack(fractal(columns, x)).mean(0), 2)
    torch.testing.assert_close(net.forward_features(x), expected)


def test_pooling_before_and_after_the_join_differ_but_not_for_one_column():
    x = torch.randn(2, 3, 8, 8)
    nets = {pool: FractalNet(filters=(4,), pool=pool).build(seed=0).eval() for pool in ("before", "after")}
    before, after = (nets[pool](x) for pool in ("before", "after"))
    assert not torch.allclose(before, after)
    for column in ("column=1", "column=2", "column=3"):
        assert torch.equal(nets["before"](x, column), nets["after"](x, column))


def test_own_norms_share_convs_and_keep_statistics_apart():
    net = FractalNet(filters=(4, 8), own_norms=True, transitions=(2,)).build(seed=0)
    shared = FractalNet(filters=(4, 8), transitions=(2,)).build(seed=0)
    convs = {k for k in net.state_dict() if ".conv." in k}
    assert convs == {k for k in shared.state_dict() if ".conv." in k}
    assert net.wiring.count_paths() == shared.wiring.count_paths() + 3  # the fractal's paths and the columns run alone
    local = net.paths("tied=local")  # the default, so it is the value of "whole"
    assert pp.count_paths(net, local) == pp.count_paths(pp.extract(net, local)) == shared.wiring.count_paths()
    assert pp.cost(net, local).paths == shared.wiring.count_paths()
    key = "block1.column3.unit1.norm.{}.running_mean"
    net.train()
    net(torch.randn(4, 3, 8, 8), paths="column=3")
    state = net.state_dict()
    assert state[key.format("column")].abs().sum() > 0
    assert state[key.format("local")].abs().sum() == 0
    child = pp.extract(net, "column=3")
    assert "block1.column3.unit1.norm.column.weight" in child.state_dict()
    assert "block1.column3.unit1.norm.local.weight" not in child.state_dict()
    assert {k for k in child.state_dict() if "transition.norm" in k and "weight" in k} == {
        "block2.transition.norm.column3.weight"
    }


@pytest.mark.parametrize("pool", ["before", "after"])
@pytest.mark.parametrize("own_norms", [False, True])
def test_no_module_runs_twice(pool, own_norms):
    """Attribution by hooks on modules (DeepLift) requires it."""
    net = FractalNet(filters=(4, 8), pool=pool, own_norms=own_norms).build()
    ran = [node.module for node in net.wiring.alive() if isinstance(node, Unit)]
    assert len(set(ran)) == len(ran)


def test_details_of_the_generator_are_options():
    net = FractalNet(filters=(4, 4), bias=True, affine=False, dropout=(0.0, 0.5)).build()
    first, second = (part(net, f"block{b}.column1.unit1") for b in (1, 2))
    assert first.conv.bias is not None
    assert first.norm.weight is None
    assert first.parts == ("conv", "norm", "act")
    assert second.parts == ("conv", "drop", "norm", "act")


def test_concat_joins_have_every_operand_and_no_columns():
    net = FractalNet(filters=(4, 4), join="concat").build()
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert list(net.named_paths()) == ["whole"]
    with pytest.raises(ValueError, match="unknown key 'column'"):
        net.paths("column=1")


def test_caffes_xavier_is_the_papers_initialisation():
    weight = part(FractalNet(filters=(64,), columns=2).build(seed=0), "block1.column2.unit1").conv.weight
    bound = (3 / (3 * 9)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"filters": ()}, "at least one block"),
        ({"columns": 0}, "at least 1"),
        ({"join": "average"}, "mean, sum, max, concat"),
        ({"pool": "between"}, "before, after"),
        ({"transitions": (6,)}, "1 to 5"),
        ({"dropout": (0.1, 0.2)}, "one for each block"),
        ({"init": "zeros"}, "truncated_normal, he, he_fan_in, xavier, xavier_fan_in"),
        ({"num_classes": -1}, "at least 0"),
        ({"depth": 3}, "has no argument 'depth'"),
    ],
)
def test_illegal_arguments(arguments, told):
    with pytest.raises(ValueError, match=told):
        pp.create_model("fractalnet20", **arguments)
