"""The networks to measure: our networks, straightforward versions of them, and networks of other packages.

The ``rival`` of a network is the residual network that it is compared with. Both have similar MACs and widths:

* DFN-MR-56, DFN-IL-56, DR-ResNet-74 (16, 32, 64 maps, 0.25 GMACs): the CIFAR ResNet-110 of pytorchcv.
* FractalNet-20, GUNN-15 (0.85 and 0.56 GMACs): timm's ResNet-18 with CIFAR's stem (64 to 512 maps, 0.56 GMACs).
* CrescendoNet-128 (1.39 GMACs): timm's ResNet-34 with CIFAR's stem (1.16 GMACs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

import polypath as pp
from polypath.layers.gunn.layer import GunnLayer
from polypath.layers.pointwise import PointwiseConv

RESNET110, RESNET18, RESNET34 = "pytorchcv resnet110", "timm resnet18, CIFAR stem", "timm resnet34, CIFAR stem"


@dataclass(frozen=True)
class Model:
    """A network to measure: its constructor and its origin.

    ``whose`` is ``ours``, ``plain`` for a straightforward version of our network, or ``peer`` for another package's.
    """

    make: Callable[[], nn.Module]
    whose: str
    rival: str = ""


def ours(name: str) -> Callable[[], nn.Module]:
    return lambda: pp.create_model(name, seed=0)


def straightforward(name: str) -> Callable[[], nn.Module]:
    """Return one of our networks with reference layers, against which the fast layers are tested."""

    def make() -> nn.Module:
        net = pp.create_model(name, seed=0)
        for layer in net.modules():
            if isinstance(layer, GunnLayer):
                layer.backward = "reference"
        return as_convs(net)

    return make


def as_convs(net: nn.Module) -> nn.Module:
    """Return the network with its 1×1 convs as plain torch convs."""
    for layer in net.modules():
        if isinstance(layer, PointwiseConv):
            layer.products = False
    return net


def timm_cifar(name: str) -> Callable[[], nn.Module]:
    """Return a timm ResNet whose stem is a 3×3 conv of stride 1 without a pool."""

    def make() -> nn.Module:
        import timm

        net: Any = timm.create_model(name, num_classes=10)
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        return net

    return make


def pytorchcv(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from pytorchcv.model_provider import get_model

        return cast(nn.Module, get_model(name))

    return make


def wrn16_4() -> nn.Module:
    from pytorchcv.models.wrn_cifar import get_wrn_cifar

    return get_wrn_cifar(num_classes=10, blocks=16, width_factor=4)


MODELS: dict[str, Model] = {
    "crescendonet_128": Model(ours("crescendonet_128"), "ours", RESNET34),
    "fractalnet20": Model(ours("fractalnet20"), "ours", RESNET18),
    "dfn_mr56": Model(ours("dfn_mr56"), "ours", RESNET110),
    "dfn_il56": Model(ours("dfn_il56"), "ours", RESNET110),
    "gunn15": Model(ours("gunn15"), "ours", RESNET18),
    "dr_resnet74_cifar": Model(ours("dr_resnet74_cifar"), "ours", RESNET110),
    "resnet110_cifar": Model(ours("resnet110_cifar"), "ours", RESNET110),
    "gunn15, concatenating": Model(straightforward("gunn15"), "plain"),
    RESNET110: Model(pytorchcv("resnet110_cifar10"), "peer"),
    RESNET18: Model(timm_cifar("resnet18"), "peer"),
    RESNET34: Model(timm_cifar("resnet34"), "peer"),
    "pytorchcv fractalnet": Model(pytorchcv("fractalnet_cifar10"), "peer"),
    "pytorchcv wrn16_4": Model(wrn16_4, "peer"),
    "pytorchcv densenet40_k12": Model(pytorchcv("densenet40_k12_cifar10"), "peer"),
    "pytorchcv resnext20_16x4d": Model(pytorchcv("resnext20_16x4d_cifar10"), "peer"),
}


def macs(net: nn.Module, size: int = 32) -> int:
    """Count the MACs of any network for one image, on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from polypath.core.meta import weightless

    if isinstance(net, pp.PathNet):
        return pp.cost(net, size=size).macs
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        weightless(net)(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2
