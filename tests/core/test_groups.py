"""Groups of parameters for timm's optimisers: by depth, and without weight decay."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from timm.models import group_parameters
from timm.optim._optim_factory import create_optimizer_v2

import polypath as pp
from contracts.small import small_net
from polypath.core.wiring import Unit


def test_groups_increase_with_depth():
    net = small_net("fractalnet20")
    group = net.group_matcher()
    for node in net.wiring.nodes:
        before = net.wiring.by_name.get(node.sources[0])
        if isinstance(node, Unit) and isinstance(before, Unit):
            assert group(f"{node.module}.conv.weight") > group(f"{before.module}.conv.weight")
    assert group("head.classifier.weight") == max(group(name) for name, _ in net.named_parameters())


def test_coarse_groups_are_stages():
    net = small_net("dfn_mr14")
    group, stages = net.group_matcher(coarse=True), list(net.stage_nodes)
    assert {group(name) for name, _ in net.named_parameters()} <= {*range(len(stages) + 1)}
    assert group("head.classifier.weight") == len(stages)


@pytest.mark.parametrize("name", ["fractalnet20", "gunn15", "dr_resnet_small"])
def test_timm_gives_lower_rates_to_earlier_layers(name):
    net: Any = small_net(name)
    found: Any = group_parameters(net, net.group_matcher(), reverse=True)
    assert set(found) == {key for key, _ in net.named_parameters()}
    optimiser = create_optimizer_v2(net, "sgd", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scales = [group["lr_scale"] for group in optimiser.param_groups]
    assert max(scales) == 1.0
    assert min(scales) == 0.5 ** max(found.values())
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(net.parameters()))


def test_tokens_and_positions_do_not_decay():
    small: dict[str, Any] = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}
    theirs: Any = timm.create_model("vit_tiny_patch16_224", **small)
    own = theirs.no_weight_decay()
    plain = pp.create_model("timm:vit_tiny_patch16_224", seed=0, **small)
    skips = pp.create_model("timm:vit_tiny_patch16_224", seed=0, skips=True, **small)
    for net in (plain, skips):
        names = {name for name, _ in net.named_parameters()}
        found = {name for name in net.no_weight_decay() if name in names}
        assert {name.rpartition(".")[2] for name in found} == {"pos_embed", "cls_token"} <= own
    assert small_net("fractalnet20").no_weight_decay() == set()
