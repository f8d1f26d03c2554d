"""Grad-CAM against independent computations: classifier weights, extracted networks, finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import polypath as pp
from conftest import assert_close, part, randomise_norms
from polypath.analysis.grad_cam import grad_cam, head_maps
from polypath.core.builder import NetBuilder
from polypath.core.recalibrate import recalibrate

X = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def net() -> pp.PathNet:
    """A network whose head pools and classifies."""
    return randomise_norms(pp.create_model("fractalnet16_small", seed=1, filters=(4, 6), columns=3)).eval()


@pytest.fixture(scope="module")
def exits() -> pp.PathNet:
    """A network whose heads apply batch-norm and ReLU before they pool."""
    return randomise_norms(pp.create_model("resnet20_cifar", seed=1, exits=(1, 2), width=4)).eval()


def finished(raw: torch.Tensor, size: tuple[int, int] = (16, 16)) -> torch.Tensor:
    """Eq. 2 without its sum: ReLU, enlarged, scaled to a maximum of 1."""
    heat = F.interpolate(raw.relu()[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-30)


@pytest.mark.parametrize("path", ["whole", "column=1", "column=3"])
def test_of_a_pooled_linear_head_it_is_the_weighted_maps(net, path):
    """Class activation maps (Zhou et al. 2016): the weight of a map is its column of the classifier."""
    child = pp.extract(net, path)
    maps = child.forward_features(X).detach()
    flat = child.forward_head(maps, pre_logits=True)
    assert_close(flat.detach(), maps.mean((2, 3)))  # else the classifier's columns are not the weights
    weight = net.get_classifier().weight.detach()
    classes = [0, 3, 3, 7, 9]
    raw = (weight[classes][:, :, None, None] * maps).sum(1)
    found = grad_cam(net, X, path, classes)
    assert found.shape == (5, 16, 16)
    assert_close(found, finished(raw), 1e-4)
    assert float(found.min()) >= 0
    assert float(found.max()) == 1


@pytest.mark.parametrize("path", ["exit=1", "exit=2", "whole"])
def test_of_any_head_it_is_what_differences_say(exits, path):
    """dy/dA by finite differences of one map at a time, in float64."""
    exits = exits.double()
    try:
        child = pp.extract(exits, path)
        x = X[:2].double()
        maps = child.forward_features(x).detach()
        step = 1e-5
        weights = torch.empty(maps.shape[:2], dtype=torch.float64)
        with torch.no_grad():
            for k in range(maps.shape[1]):
                up, down = maps.clone(), maps.clone()
                up[:, k] += step
                down[:, k] -= step
                rise = (child.forward_head(up)[:, 4] - child.forward_head(down)[:, 4]) / (2 * step)
                weights[:, k] = rise / maps[0, 0].numel()  # the mean over pixels, all of which were moved
        raw = (weights[:, :, None, None] * maps).sum(1)
        assert_close(grad_cam(exits, x, path, 4), finished(raw).float(), 1e-4)
    finally:
        exits.float()


def test_the_maps_are_those_that_the_paths_own_head_reads(exits, net):
    nodes = {path: head_maps(exits, exits.paths(path)) for path in ("exit=1", "exit=2", "whole")}
    stages = list(exits.stage_nodes.values())
    assert nodes["exit=1"] in stages[0]
    assert nodes["exit=2"] in stages[1]
    assert nodes["whole"] in stages[2]
    assert head_maps(net, net.paths("whole")) == head_maps(net, net.paths("column=1"))


def test_of_one_pixel_the_last_stage_with_more_is_taken(net):
    """FractalNet pools after each block: of 4×4 pixels, one remains for the head, four for the last block."""
    x = X[:, :, :4, :4]
    child = pp.extract(net, "column=1")
    (node,), (last,) = child.stage_nodes.values()
    assert head_maps(child, child.paths(None)) == last
    heats = []
    for image in x.split(1):  # by the definition
        values: dict[str, torch.Tensor] = {}
        hooks = [child.register_node_hook(name, values.__setitem__) for name in (node, last)]
        logits = child(image)
        for hook in hooks:
            hook.remove()
        assert (values[node].shape[2:], values[last].shape[2:]) == ((2, 2), (1, 1))
        (gradient,) = torch.autograd.grad(logits[0, 2], values[node])
        heats.append((gradient.mean((2, 3))[0][:, None, None] * values[node][0].detach()).sum(0))
    assert_close(grad_cam(net, x, "column=1", 2), finished(torch.stack(heats), (4, 4)), 1e-4)


def test_without_classes_it_explains_the_answers(net):
    with torch.no_grad():
        given = net(X, paths="column=1").argmax(1).tolist()
    assert torch.equal(grad_cam(net, X, "column=1"), grad_cam(net, X, "column=1", given))
    others = [(c + 1) % 10 for c in given]
    assert not torch.equal(grad_cam(net, X, "column=1"), grad_cam(net, X, "column=1", others))


def test_it_finds_what_a_class_is_made_of():
    """A network that answers 1 for red images."""
    b = NetBuilder()
    z = b.add("stem", "input", nn.Conv2d(3, 2, 1, bias=False))
    z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
    z = b.add("head.flatten", z, nn.Flatten())
    net = b.net(b.add("head.classifier", z, nn.Linear(2, 2, bias=False)))
    with torch.no_grad():
        part(net, "stem").weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None])
        part(net, "head.classifier").weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    x = torch.zeros(1, 3, 8, 8)
    x[0, 0, 5, 2] = 1
    heat = grad_cam(net, x, None, 1)[0]
    assert float(heat[5, 2]) == 1
    assert float(heat.sum()) == 1
    assert float(grad_cam(net, x, None, 0).max()) == 0  # nothing is green


def test_statistics_of_the_path_are_used(net):
    stats = recalibrate(net, [net.paths("column=1")], [(X, torch.zeros(5))], 5)
    assert not torch.equal(grad_cam(net, X, "column=1", 0, stats=stats), grad_cam(net, X, "column=1", 0))


def test_it_leaves_the_network_unchanged(net):
    net.train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.no_grad():
        assert not grad_cam(net, X).requires_grad
    assert all(module.training for module in net.modules())
    net.eval()
    assert net.node_hooks == {}
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())


def test_what_cannot_be_explained_is_refused(net):
    with pytest.raises(ValueError, match=r"class = 10: must be a whole number from 0 to 9"):
        grad_cam(net, X, None, 10)
    with pytest.raises(ValueError, match=r"classes has 2 values for 5 images"):
        grad_cam(net, X, None, [1, 2])
    b = NetBuilder()
    z = b.add("flat", "input", nn.Flatten())
    tokens = b.net(b.add("head.classifier", z, nn.Linear(768, 2)))
    with pytest.raises(ValueError, match=r"its head reads 'flat' of shape \(5, 768\), but must read maps"):
        grad_cam(tokens, X)
    b = NetBuilder()
    headless = b.net(b.add("conv", "input", nn.Conv2d(3, 2, 1)))
    with pytest.raises(ValueError, match="has no head"):
        grad_cam(headless, X)
