"""ResNet's unit, its ImageNet forms against timm, Appendix A.1's candidates, stochastic depth."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from conftest import randomise_norms
from families.fused import SMALL, chain, head, images, meta, projected, small
from polypath.families.registry import get_preset
from polypath.families.resnet import ResNet, from_timm_state_dict


@pytest.mark.parametrize("name", ["resnet", "bottleneck", "dfn_il"])
@pytest.mark.parametrize(("join", "combine"), [("sum", torch.add), ("max", torch.maximum)])
def test_a_residual_unit_is_its_equation(name, join, combine):
    net = small(name, join=join)
    x = images(size=32)
    branches = ["branch1", "branch2"] if name == "dfn_il" else ["branch"]
    with torch.inference_mode():
        unit = net.get_submodule("stem.unit")
        z = F.relu(unit.norm(unit.conv(x)))
        z = F.max_pool2d(z, 3, 2, 1) if name == "bottleneck" else z
        for block in [join[: -len(".join")] for join in net.wiring.joins]:
            out = projected(net, f"{block}.shortcut", z)
            for branch in branches:
                out = combine(out, chain(net, f"{block}.{branch}", z))
            z = F.relu(out)
        torch.testing.assert_close(net(x), head(net, z))


# --- stochastic depth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nf3", "resnet", "dfn_il", "dfn_mr"])
def test_survival_falls_linearly_and_scales_in_evaluation(name):
    net = small(name, depth=8, survival=0.4)
    rates = {}
    for join in net.wiring.joins.values():
        for operand in join.operands:
            if operand.survival < 1.0:
                assert operand.label.startswith("R")
                rates.setdefault(round(operand.survival, 6), set()).add(join.name.rpartition(".")[0])
    assert sorted(rates, reverse=True) == [0.8, 0.6, 0.4]  # 1 - l/3·0.6
    assert all(len(names) == 1 for names in rates.values())
    same = small(name, depth=8, survival=0.4, survival_rule="uniform")
    assert {o.survival for j in same.wiring.joins.values() for o in j.operands} == {1.0, 0.4}
    plain = small(name, depth=8)
    assert torch.equal(net.train()(images()), plain.train()(images()))
    assert not torch.allclose(net.eval()(images()), plain.eval()(images()))
    with pytest.raises(ValueError, match="requires join = 'sum'"):
        type(SMALL[name])(depth=8, survival=0.4, join="max")


# --- ImageNet ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "blocks", "block"),
    [("resnet18", (2, 2, 2, 2), "basic"), ("resnet50", (3, 4, 6, 3), "bottleneck"), ("resnet101", None, "bottleneck")],
)
def test_timms_weights_give_timms_outputs(name, blocks, block):
    import timm

    theirs = randomise_norms(timm.create_model(name)).double().eval()
    spec = get_preset("fusenet_resnet101_imagenet").spec
    assert isinstance(spec, ResNet)
    fields = {**vars(spec), "block": block, "blocks": blocks or spec.blocks}
    x, state = images(2, 64), from_timm_state_dict(theirs.state_dict())
    ours = ResNet(**fields).build().double().eval()
    ours.load_state_dict(state)
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))
        if name == "resnet50":  # v1 has its stride elsewhere: the same weights fit but give another output
            other = ResNet(**{**fields, "stride_at": "1x1"}).build().double().eval()
            other.load_state_dict(state)
            assert not torch.allclose(other(x), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="layer9"):
        from_timm_state_dict({"layer9.0.se.fc.weight": torch.zeros(1)})


def test_dfn1_and_dfn2_have_the_properties_of_appendix_a1():
    whole, dfn1, dfn2 = (meta(n).wiring for n in ("fusenet_resnet50_imagenet", "dfn1_imagenet", "dfn2_imagenet"))
    assert whole.longest() == dfn1.longest() == dfn2.longest() == 50
    assert whole.count_paths() == dfn1.count_paths() == 2**16 > 100 * dfn2.count_paths()  # Eq. 1
    assert mean_depth(dfn1) > mean_depth(whole) + 10  # "much deeper"
    assert dfn1.shortest() > whole.shortest()
    assert 0 < dfn1.depth_distribution()[dfn1.shortest()] / 2**16 < 0.1  # "a few shallow networks"
    deeper = [d for d in dfn2.depth_distribution() if d not in whole.depth_distribution()]
    assert deeper == []


def mean_depth(wiring) -> float:
    table = wiring.depth_distribution()
    return sum(d * n for d, n in table.items()) / sum(table.values())


def test_dfn2s_component_networks_are_resnets():
    fields = {**vars(SMALL["bottleneck"]), "blocks": (3, 2, 1, 2)}
    resnet = randomise_norms(ResNet(**fields).build(seed=0)).double().eval()
    dfn2 = ResNet(**{**fields, "span": 2}).build().double().eval()
    own = dfn2.state_dict().keys()
    assert own <= resnet.state_dict().keys()
    dfn2.load_state_dict({key: tensor for key, tensor in resnet.state_dict().items() if key in own})
    routes = ["".join(r) for r in itertools.product("LR", repeat=5)]
    for route in routes:  # fusions over blocks 1-2, 3 | 1-2 | 1 | 1-2
        long = "".join(side * n for side, n in zip(route, (2, 1, 2, 1, 2), strict=True))
        torch.testing.assert_close(dfn2(images(), paths=f"route={route}"), resnet(images(), paths=f"route={long}"))
    assert not torch.allclose(dfn2(images()), resnet(images()))


def test_bottlenecks_have_the_stride_at_the_given_conv():
    for at, strides in (("3x3", (1, 2, 1)), ("1x1", (2, 1, 1))):
        net = small("bottleneck", stride_at=at)
        units = net.get_submodule("group2.block1.branch").children()
        assert tuple(unit.conv.stride[0] for unit in units) == strides
