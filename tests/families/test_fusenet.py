"""Plain nets, ResNets, N_f3, N_f6, DFN-IL and DFN-MR against the paper's text, tables and printed sizes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import polypath as pp
from families.fused import SMALL, chain, head, images, meta, params, projected, small
from polypath.core.wiring import Join
from polypath.families.fusenet import FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.registry import PRESETS
from polypath.families.resnet import ResNet, share

OURS = ("plain", "fusenet", "resnet", "dfn_il", "dfn_mr")

# --- printed figures -----------------------------------------------------------------------------------------

TABLE_1 = {  # depth: LLL, RLL, LRL, LLR, RRL, RLR, LRR, RRR
    14: (5, 8, 8, 8, 11, 11, 11, 14),
    20: (5, 10, 10, 10, 15, 15, 15, 20),
    26: (5, 12, 12, 12, 19, 19, 19, 26),
    38: (5, 16, 16, 16, 27, 27, 27, 38),
    50: (5, 20, 20, 20, 35, 35, 35, 50),
    56: (5, 22, 22, 22, 39, 39, 39, 56),
    62: (5, 24, 24, 24, 43, 43, 43, 62),
    74: (5, 28, 28, 28, 51, 51, 51, 74),
    98: (5, 36, 36, 36, 67, 67, 67, 98),
    110: (5, 40, 40, 40, 75, 75, 75, 110),
}
TABLE_4 = {  # d1: d2, ResNet's and DFN-MR's parameters in millions
    26: (14, 0.37, 0.35),
    38: (20, 0.56, 0.54),
    50: (26, 0.76, 0.74),
    62: (32, 0.95, 0.93),
    74: (38, 1.15, 1.13),
    98: (50, 1.54, 1.52),
    110: (56, 1.73, 1.71),
    194: (98, 3.09, 3.07),
}


@pytest.mark.parametrize("depth", TABLE_1)
def test_depths_of_the_80_component_networks_of_table_1(depth):
    net = meta(f"fusenet_nf3_{depth}")
    names = [f"route={''.join(r)}" for r in ("LLL", "RLL", "LRL", "LLR", "RRL", "RLR", "LRR", "RRR")]
    assert list(net.named_paths()) == ["whole", *names]
    found = [net.wiring.depth_distribution(net.paths(name)) for name in names]
    assert found == [{layers: 1} for layers in TABLE_1[depth]]


@pytest.mark.parametrize("depth", TABLE_4)
def test_table_4s_pairs_their_parameters_and_their_paths(depth):
    half, resnet_millions, mr_millions = TABLE_4[depth]
    assert half == depth // 2 + 1
    plain, resnet = meta(f"plain{depth}_cifar"), meta(f"resnet{depth}_cifar")
    il, mr = meta(f"dfn_il{half}"), meta(f"dfn_mr{half}")
    assert [net.wiring.longest() for net in (plain, resnet, il, mr)] == [depth, depth, half, half]
    assert round(params(resnet) / 1e6, 2) == resnet_millions
    assert round(params(mr) / 1e6, 2) == mr_millions
    assert params(plain) < params(resnet)
    units = (half - 2) // 2
    assert plain.wiring.count_paths() == 1
    assert il.wiring.count_paths() == 3**units
    assert mr.wiring.count_paths() == 4 * 3 ** (units - 1)
    assert resnet.wiring.count_paths() == 4**units  # §5 calls merge-and-run's ensemble as large: it is smaller
    assert 3**units < 4 * 3 ** (units - 1) < 4**units


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dfn_mr1", 1_710_426),
        ("dfn_mr2", 14_851_402),
        ("dfn_mr3", 24_151_882),  # the paper prints 24.8M
        ("fusenet_resnet50_imagenet", 25_557_032),
        ("fusenet_resnet101_imagenet", 44_549_160),
        ("dfn_mr_imagenet", 43_338_024),
    ],
)
def test_parameters_to_the_digit(name, count):
    assert params(meta(name)) == count


def test_resnet_110_has_two_to_the_54_paths():
    wiring = meta("resnet110_cifar").wiring
    assert wiring.count_paths() == 2**54
    assert wiring.depth_distribution()[2 + 2 * 27] == 1946939425648112  # 54 over 27
    assert meta("resnet56_cifar").wiring.count_paths() == 2**27


def test_every_network_has_the_depth_that_is_printed():
    ours = {name: preset for name, preset in PRESETS.items() if preset.spec.family in OURS}
    assert len(ours) > 80
    for name in list(ours)[::5]:
        if "depth" in (printed := ours[name].printed):
            assert meta(name).wiring.longest() == printed["depth"], name


def test_groups_share_units_from_the_last_to_the_first():
    assert share(9, 3) == (3, 3, 3)
    assert share(13, 3) == (4, 4, 5)
    assert share(14, 3) == (4, 5, 5)
    assert ResNet(depth=28).group_blocks == (4, 4, 5)


# --- what the diagrams compute -------------------------------------------------------------------------------


@pytest.mark.parametrize(("join", "combine"), [("sum", torch.add), ("max", torch.maximum)])
@pytest.mark.parametrize("name", ["nf3", "nf6"])
def test_a_fused_net_is_its_equation(name, join, combine):
    net = small(name, join=join)
    x = images()
    with torch.inference_mode():
        z = F.relu(chain(net, "stem", x))
        for k in range(1, 4 if name == "nf3" else 7):
            shallow = name == "nf3" or k % 2 == 1  # a conv where the size changes and at first, else the identity
            left = chain(net, f"fusion{k}.L", z) if shallow else z
            z = F.relu(combine(left, chain(net, f"fusion{k}.R", z)))
        torch.testing.assert_close(net(x), head(net, z))


def test_concatenated_fusions_have_no_choices():
    for name, width in (("nf3", 32), ("nf6", 48)):  # 16 + 16 maps at the end; 16 + 16, then + 16
        net = small(name, join="concat")
        assert net.get_submodule("head.classifier").in_features == width
        assert net(images()).shape == (2, 10)
        assert net.named_paths().keys() == {"whole"}
        with pytest.raises(ValueError, match=r"join 'fusion1\.join' is a concat, so all its operands L, R must run"):
            net.paths("fusion1.join=L")


@pytest.mark.parametrize("streams", [2, 3])
def test_merge_and_run_is_its_equation(streams):
    net = small("dfn_mr", streams=streams)
    x = images()
    blocks = [name[: -len(".merge")] for name in net.wiring.joins if name.endswith(".merge")]
    with torch.inference_mode():
        xs = [F.relu(chain(net, "stem", x))] * streams
        for block in blocks:
            merged = sum(projected(net, f"{block}.shortcut{s}", z) for s, z in enumerate(xs, 1)) / streams
            branches = [chain(net, f"{block}.branch{s}", z) for s, z in enumerate(xs, 1)]
            last = F.relu(merged + sum(branches))
            xs = [F.relu(merged + branch) for branch in branches]
        torch.testing.assert_close(net(x), head(net, last))
    assert len(blocks) == 4
    assert net.wiring.count_paths() == 2 * streams * (streams + 1) ** 3
    projections = [m for m in net.wiring.modules if ".shortcut" in m]
    assert len(projections) == 2 * streams  # each stream has its own, at both size changes


# --- nets of the released code that the paper does not have ----------------------------------------------------


def test_side_is_inception_like_without_shortcuts():
    net, x = small("dfn_il", shortcuts=False), images()
    with torch.inference_mode():
        z = F.relu(chain(net, "stem", x))
        for block in [join[: -len(".join")] for join in net.wiring.joins]:
            z = F.relu(chain(net, f"{block}.branch1", z) + chain(net, f"{block}.branch2", z))
        torch.testing.assert_close(net(x), head(net, z))
    assert net.wiring.count_paths() == 2**4
    assert net.path_names == ("stream=1", "stream=2")
    assert net.wiring.longest(net.paths("route=R1R2R1R2")) == 10
    assert set(pp.extract(net, "stream=2").wiring.joins) == set()
    for text, told in (
        ("route=LR1R1R1", "must have one of R1, R2 for each of the 4 fusions"),
        ("units=1", "unknown key 'units'"),
    ):
        with pytest.raises(ValueError, match=told):
            net.paths(text)


def test_the_released_imagenet_net_has_no_shortcut_where_the_size_changes_and_ends_in_both_streams():
    net, x = small("dfn_mr", depth=14, projections=False, ending="concat"), images()
    blocks = list(dict.fromkeys(m.split(".branch")[0] for m in net.wiring.modules if ".branch" in m))
    resized = {"group2.block1", "group3.block1"}
    with torch.inference_mode():
        xs = [F.relu(chain(net, "stem", x))] * 2
        for block in blocks:
            merged = 0.0 if block in resized else sum(xs) / 2
            xs = [F.relu(merged + chain(net, f"{block}.branch{s}", z)) for s, z in enumerate(xs, 1)]
        torch.testing.assert_close(net(x), head(net, torch.cat(xs, 1)))
    assert {join for join in net.wiring.joins if join.endswith(".merge")} == {
        f"{block}.merge" for block in blocks if block not in resized
    }
    assert net.named_paths()["units=1"] == net.paths("units=1/1/1")
    assert net.wiring.longest(net.paths("units=0")) == 2 + 2 * 2  # fusions that change the size still run
    with pytest.raises(ValueError, match="unknown key 'stream'"):
        net.paths("stream=1")


def test_released_nets_have_their_printed_sizes():
    spec = MergeAndRun(
        blocks=(1, 2, 11, 2), width=64, block="bottleneck", stem="imagenet", projections=False, ending="concat"
    )
    with torch.device("meta"):
        assert params(replace(spec, num_classes=1000).build()) == 46_395_176  # the README's 46.4M


def test_streams_without_projections_can_still_be_summed():
    net = small("dfn_mr", depth=14, projections=False)  # two fusions per group: the last one has a shortcut
    found = [net.paths(f"route={route}") for route in ("R1R1R1R1R1R1", "R1L1R2L2R1L1")]
    assert [net.wiring.longest(paths) for paths in found] == [14, 8]
    assert net.wiring.count_paths(net.paths("stream=1")) == 2**4
    with pytest.raises(ValueError, match="fusion 3 has no shortcut, so it must be R1, not L1"):
        net.paths("route=R1R1L1R1R1R1")
    with pytest.raises(ValueError, match="set ending = 'concat'"):
        MergeAndRun(depth=8, projections=False)


@pytest.mark.parametrize("name", SMALL)
def test_batch_norm_has_the_epsilon_and_momentum_that_are_set(name):
    net = small(name, norm_eps=2e-5, norm_momentum=0.01)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(2e-5, 0.01)}
    plain = small(name)
    x = images(size=32)
    assert not torch.equal(plain(x), net(x))
    torch.testing.assert_close(plain(x), net(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pp.fuse(small(name, norm_eps=2e-5))(x), net(x))
    with pytest.raises(ValueError, match="norm_eps"):
        small(name, norm_eps=0.0)


def test_a_saved_network_has_its_epsilon(tmp_path):
    net = small("dfn_mr", norm_eps=2e-5).float()
    pp.save(net, tmp_path / "net")
    x = images().float()
    assert torch.equal(pp.load(tmp_path / "net")(x), net(x))


# --- choices -------------------------------------------------------------------------------------------------


def test_the_deepest_route_is_the_plain_net():
    plain, fused = small("plain"), small("nf3")
    ours = [m for m in fused.wiring.prune(fused.paths("route=RRR")).modules if "relu" not in m]
    assert len(ours) == len(plain.wiring.modules)
    for mine, its in zip(ours, plain.wiring.modules, strict=True):
        plain.get_submodule(its).load_state_dict(fused.get_submodule(mine).state_dict())
    torch.testing.assert_close(fused(images(), paths="route=RRR"), plain(images()))
    assert not torch.allclose(fused(images(), paths="route=RRL"), plain(images()))


def test_nf6s_64_routes_contain_nf3s_8():
    nf3 = small("nf3", depth=14)
    nf6 = small("nf6", depth=14)
    for group in (1, 2, 3):
        first, second = f"fusion{2 * group - 1}", f"fusion{2 * group}"
        for deep, (mine, i) in enumerate([(first, 1), (first, 2), (second, 1), (second, 2)], 1):
            unit = nf3.get_submodule(f"fusion{group}.R.unit{deep}")
            nf6.get_submodule(f"{mine}.R.unit{i}").load_state_dict(unit.state_dict())
        shallow = nf3.get_submodule(f"fusion{group}.L.unit1")
        nf6.get_submodule(f"{first}.L.unit1").load_state_dict(shallow.state_dict())
    for shared in ("stem.unit", "head.classifier"):
        nf6.get_submodule(shared).load_state_dict(nf3.get_submodule(shared).state_dict())
    assert nf6.wiring.count_paths() == 64
    for route in map("".join, itertools.product("LR", repeat=3)):
        doubled = "".join(letter * 2 for letter in route)
        torch.testing.assert_close(nf6(images(), paths=f"route={doubled}"), nf3(images(), paths=f"route={route}"))
    assert [t.removeprefix("route=") for t in nf6.path_names] == [
        "".join(letter * 2 for letter in t.removeprefix("route=")) for t in nf3.path_names
    ]
    assert not torch.allclose(nf6(images()), nf3(images()))


@pytest.mark.parametrize("name", ["dfn_il", "dfn_mr"])
@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_alone_is_a_resnet(name, stream):
    net = small(name)
    child = pp.extract(net, f"stream={stream}")
    alone = ResNet(depth=10, width=4).build().double().eval()
    state = {}
    for key, tensor in child.state_dict().items():
        key = key.replace(f".branch{stream}.", ".branch.")
        state[key.replace(f".shortcut{stream}.", ".shortcut.") if name == "dfn_mr" else key] = tensor
    alone.load_state_dict(state)
    torch.testing.assert_close(alone(images()), net(images(), paths=f"stream={stream}"))
    assert not torch.allclose(alone(images()), net(images(), paths=f"stream={3 - stream}"))
    assert child.wiring.count_paths() == 2**4


@pytest.mark.parametrize("name", ["nf3", "resnet", "dfn_il", "dfn_mr"])
def test_routes_are_exactly_the_component_networks(name):
    net = small(name, depth=8)
    wiring, fusions = net.wiring, 3
    letters = {"dfn_il": ["L", "R1", "R2"], "dfn_mr": ["L1", "L2", "R1", "R2"]}.get(name, ["L", "R"])
    found, refused = {}, []
    for route in map("".join, itertools.product(letters, repeat=fusions)):
        try:
            found[route] = net.paths(f"route={route}")
        except ValueError as error:
            refused.append("must follow" in str(error))
    assert len(refused) == (28 if name == "dfn_mr" else 0)  # 64 words, 36 paths
    assert all(refused)
    chains = {pp.Paths.along(wiring, one) for one in wiring.routes()}
    assert set(found.values()) == chains
    assert len(found) == wiring.count_paths() == len(chains)
    for route, paths in found.items():
        assert list(wiring.depth_distribution(paths).items()) == [
            (2 + sum(2 if letter == "R" else name == "nf3" for letter in route if letter in "LR"), 1)
        ]
        assert net.paths(str(paths)) == paths


def test_units_keeps_the_first_fusions_of_each_group():
    for name in ("resnet", "dfn_il", "dfn_mr"):
        net = small(name, depth=14)  # two fusions per group
        half = net.paths("units=1")
        assert half == net.paths("units=1/1/1") == net.named_paths()["units=1"]
        assert half != net.paths("units=1/2/1")
        assert net.wiring.longest(half) == 8
        assert net.wiring.longest(net.paths("units=0")) == 2
        assert net.paths("units=2") == pp.Paths()
        child = pp.extract(net, half)
        assert torch.equal(child(images()), net(images(), paths=half))
        assert not any(".block2.branch" in key for key in child.state_dict())


@pytest.mark.parametrize("name", SMALL)
def test_extraction_is_bit_for_bit_on_named_and_random_choices(name):
    net, x = small(name), images(size=32)
    rng = random.Random(0)
    choices = list(net.named_paths().values())
    for _ in range(20 if net.wiring.joins else 0):
        some = {j.name: rng.sample(j.labels, rng.randint(1, len(j.labels))) for j in net.wiring.joins.values()}
        choices.append(pp.Paths.of(net.wiring, some))
    with torch.inference_mode():
        outs = []
        for paths in choices:
            child = pp.extract(net, paths)
            outs.append(net(x, paths=paths))
            assert torch.equal(child(x), outs[-1])
            assert child.state_dict().keys() <= net.state_dict().keys()
    assert name == "plain" or len({tuple(out.flatten().tolist()) for out in outs}) > 4


def test_an_extracted_network_refuses_choices_that_it_lost():
    net = small("nf6")
    child = pp.extract(net, "route=RRLLRR")
    assert child.paths("route=RRLLRR") == pp.Paths()
    assert list(child.named_paths()) == ["whole"]
    with pytest.raises(ValueError, match="no longer has this path"):
        child.paths("route=RRLLRL")
    net = small("dfn_mr")
    child = pp.extract(net, "stream=2")
    assert child.paths("route=R2L2R2L2") == pp.Paths.of(
        child.wiring, dict(zip(child.wiring.joins, [["R"], ["L"], ["R"], ["L"]], strict=True))
    )
    for lost in ("stream=1", "route=R1R1R1R1", "route=L2L1R1R1"):
        with pytest.raises(ValueError, match="no longer has this path"):
            child.paths(lost)


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "arguments", "told"),
    [
        (ResNet, {"depth": 27}, "nearest legal depth is 26 or 28"),
        (ResNet, {"depth": 3}, "nearest legal depth is 8"),
        (ResNet, {"depth": 50, "block": "bottleneck"}, None),
        (ResNet, {"depth": 51, "block": "bottleneck"}, "nearest legal depth is 50 or 53"),
        (ResNet, {}, "give exactly one of them"),
        (ResNet, {"depth": 20, "blocks": (3, 3, 3)}, "give exactly one of them"),
        (ResNet, {"blocks": (3, 0, 3)}, "at least 1"),
        (ResNet, {"depth": 20, "join": "mean"}, "sum, max"),
        (ResNet, {"depth": 20, "survival": 0.0}, r"\(0, 1\]"),
        (FusedNet, {"depth": 16}, "nearest legal depth is 14 or 17"),
        (FusedNet, {"depth": 17, "fusions": 6}, "nearest legal depth is 14 or 20"),
        (FusedNet, {"fusions": 2}, "at least 3"),
        (FusedNet, {"join": "product"}, "sum, max, concat"),
        (PlainNet, {"depth": 4}, "nearest legal depth is 5"),
        (MergeAndRun, {"depth": 14, "streams": 1}, "at least 2"),
        (MergeAndRun, {"depth": 15}, "nearest legal depth is 14 or 16"),
        (InceptionLike, {"depth": 14, "branches": 1}, "at least 2"),
    ],
)
def test_illegal_sizes_name_the_nearest_legal_ones(cls, arguments, told):
    if told is None:
        assert sum(cls(**arguments).group_blocks) == 16
        return
    with pytest.raises(ValueError, match=told):
        cls(**arguments)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("nf3", "route=RL", "must have 3, one for each of the 3 fusions"),
        ("nf3", "route=RLRL", "must have 3, one for each of the 3 fusions"),
        ("nf6", "route=RLL", "must have 6, one for each of the 6 fusions"),
        ("nf3", "route=RXL", "must have one of L, R for each of the 3 fusions"),
        ("nf3", "route=rll", "must have one of L, R for each of the 3 fusions"),
        ("nf3", "stream=1", "unknown key 'stream'"),
        ("dfn_il", "route=LRLL", "must have one of L, R1, R2 for each of the 4 fusions"),
        ("dfn_il", "route=LR1", "must have 4, one for each of the 4 fusions"),
        ("dfn_il", "stream=3", "one of 1, 2"),
        ("dfn_mr", "stream=0", "one of 1, 2"),
        ("dfn_mr", "route=R1L2L1L1", "so L1 or R1 must follow, not L2"),
        ("resnet", "units=3", "one of 0, 1, 2"),
        ("resnet", "units=1/2", "3 numbers separated by '/'"),
        ("plain", "route=R", "unknown key"),
    ],
)
def test_illegal_choices(name, text, told):
    with pytest.raises(ValueError, match=told):
        small(name).paths(text)


def test_a_fusions_relu_does_not_overwrite_values_that_others_read():
    for name in SMALL:
        net = small(name)
        joins = {n.name for n in net.wiring.nodes if isinstance(n, Join)}
        for node in net.wiring.nodes:
            if node.sources[0] in joins and ".relu" in node.name:
                assert not net.get_submodule(node.module).inplace
