"""One flat forward of a network or a path, for torch.fx and TorchScript."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

import polypath as pp
from contracts.small import FORMS, small_net, two_paths
from polypath.families.registry import get_preset

FIRST_OF_FAMILY = {get_preset(name).spec.family: name for name in reversed(FORMS)}
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gated(net: pp.PathNet) -> bool:
    return any(join.gates for join in net.wiring.joins.values())


def scripted(net: pp.PathNet) -> Any:
    return torch.jit.script(net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*FIRST_OF_FAMILY.values(), "gunn15", "r_resnet53_lvbn_imagenet"])
def test_a_network_and_its_extracted_paths_are_recorded_and_scripted(name):
    net = small_net(name).eval()
    for text in ["whole", *two_paths(net)[-1:]]:
        child = pp.extract(net, text)
        with torch.inference_mode():
            expected = child(X)
            assert torch.equal(fx.symbolic_trace(child)(X), expected)
            assert torch.equal(fx.symbolic_trace(net, concrete_args={"paths": text})(X, text), expected)
            assert torch.equal(scripted(child)(X), expected)
            assert torch.equal(scripted(child)(X[:1]), child(X[:1]))


@pytest.mark.parametrize("name", ["fractalnet20", "gunn15", "dfn_mr14"])
def test_the_recorded_graph_trains_like_the_network(name):
    net = small_net(name).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    recorded: Any = fx.symbolic_trace(net)
    found = []
    for module in (net, recorded):
        net.load_state_dict(before)
        module.load_state_dict(before)
        module.zero_grad()
        module(X).square().mean().backward()
        found.append([p.grad for p in module.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


def test_dropout_follows_the_mode():
    small: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (64, 64, 64, 64)}
    net = pp.create_model("timm:resnet18", skips=True, drop_rate=0.5, num_classes=5, seed=0, **small)
    module: Any = net.eval().__prepare_scriptable__()
    assert torch.equal(module(X), net(X))
    for part in module.modules():
        part.training = True
    assert not torch.equal(module(X), module(X))


def test_gates_are_recorded_only_in_evaluation():
    net = small_net("dr_resnet_small")
    assert gated(net)
    with pytest.raises(ValueError, match="sampled gates: call eval"):
        fx.symbolic_trace(net.train())
