"""Small networks of the fused families, in float64, and their parts computed by hand."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import polypath as pp
from conftest import randomise_norms
from polypath.families.fusenet import FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.resnet import ResNet

SMALL = {
    "plain": PlainNet(depth=8, width=4),
    "nf3": FusedNet(depth=8, width=4),
    "nf6": FusedNet(depth=14, fusions=6, width=4),
    "resnet": ResNet(depth=14, width=4),
    "bottleneck": ResNet(blocks=(2, 1, 2, 1), width=4, block="bottleneck", stem="imagenet"),
    "dfn_il": InceptionLike(depth=10, width=4),
    "dfn_mr": MergeAndRun(depth=10, width=4),
}


def small(name: str, **arguments):
    spec = type(SMALL[name])(**{**vars(SMALL[name]), **arguments})
    return randomise_norms(spec.build(seed=0)).double().eval()


def images(n: int = 2, size: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def meta(name: str, **arguments):
    with torch.device("meta"):
        return pp.create_model(name, **arguments)


def params(net) -> int:
    return sum(p.numel() for p in net.parameters())


def chain(net, prefix, z):
    """Conv-norm units under ``prefix``, by hand; ReLU between them but not after the last."""
    units = list(net.get_submodule(prefix).children())
    for i, unit in enumerate(units):
        z = unit.norm(unit.conv(z))
        z = F.relu(z) if i + 1 < len(units) else z
    return z


def head(net, z):
    return net.get_submodule("head.classifier")(z.mean((2, 3)))


def projected(net, name, z):
    try:
        unit = net.get_submodule(name)
    except AttributeError:
        return z
    return unit.norm(unit.conv(z))
