"""MSDNet (Huang et al. 2018): densely connected features on several scales in parallel, with exits on the coarsest.

The design is that of the paper (§4, Figure 2 and the appendix on CIFAR):

- Layer 1: a 3×3 conv makes the finest scale, and strided 3×3 convs make each coarser scale from the next finer one.
- Each later layer adds two parts to each scale: the output of a conv on all maps of this scale and, except on the
  finest scale, as many channels from a strided conv on all maps of the next finer scale. Earlier maps are kept (dense
  connections).
- Each of these convs is a 1×1 conv to 1, 2, 4 times its output channels on scale 1, 2, 3, then a 3×3 conv. Both are
  followed by batch-norm and ReLU.
- The numbers of output channels on the scales are in the ratio 1, 2, 4.
- The layers are split into as many blocks as there are scales, and block i has only the scales from i on. Between
  blocks, a 1×1 conv halves the channels of the remaining scales.
- A classifier reads all maps of the coarsest scale after its layer. It has two strided 3×3 convs, pooling and a linear
  layer.
- *Lazy evaluation* skips nodes that the current classifier does not need. Here, a path runs only alive nodes.
- All classifiers are trained together, with the sum of their losses
  (:class:`polypath.training.path_objectives.Exits`).

The paper's network for CIFAR has ``first=16, growth=6, scales=3, hidden=128``, 24 layers and 11 classifiers. The
default here is a smaller network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, whole
from polypath.families.base import Family
from polypath.layers.conv import ConvUnit

EXITS = "exits"


@dataclass(frozen=True, kw_only=True)
class MSDNet(Family, name="bench-msdnet"):
    """A multi-scale network with exits; see the module's docstring.

    Args:
        layers: number of layers, including the first.
        after: layers that are followed by a classifier. The last layer always has a classifier.
        scales: number of scales.
        first: channels of the first layer on the finest scale.
        growth: channels that a layer adds on the finest scale.
        hidden: channels inside a classifier.
    """

    layers: int = 8
    after: tuple[int, ...] = (2, 4, 6)
    scales: int = 3
    first: int = 16
    growth: int = 6
    hidden: int = 64
    init: str = "he_fan_in"

    paper = "MSDNet, ICLR 2018"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            layers=whole(2),
            after=each(whole(1)),
            scales=whole(1),
            first=whole(1),
            growth=whole(2),
            hidden=whole(1),
        )
        if list(self.after) != sorted(set(self.after)) or any(n >= self.layers for n in self.after):
            raise ValueError(f"after = {self.after}: must be ascending numbers of layers below the last, {self.layers}")
        if self.scales > self.layers:
            raise ValueError(f"scales = {self.scales}: must be at most {self.layers}, the number of layers")

    @property
    def min_size(self) -> int:
        return 2 ** (self.scales - 1)

    def path_names(self) -> list[str]:
        return [f"{EXITS}=layer{n}" for n in self.after]

    def path_sets(self) -> dict[str, list[str]]:
        return {EXITS: [*self.path_names(), "whole"]}

    def block(self, layer: int) -> int:
        """Return the block of a layer, counted from 0. It is also the layer's finest scale. Layers count from 1."""
        return (layer - 1) * self.scales // self.layers

    def build_graph(self, b: NetBuilder) -> str:
        maps = self._first_layer(b)
        ends = {}
        for layer in range(1, self.layers + 1):
            if layer > 1:
                maps = self._layer(b, layer, maps)
            if layer in self.after:
                ends[f"layer{layer}"] = self._classifier(b, f"head.layer{layer}", *maps[self.scales - 1])
        end = self._classifier(b, "head.end", *maps[self.scales - 1])
        return b.join(EXITS, ends | {"end": end}, kind="switch") if ends else end

    def _first_layer(self, b: NetBuilder) -> dict[int, tuple[str, int]]:
        """Add the first layer. Return the node and the number of channels of each scale."""
        maps, z, chans = {}, b.input, self.in_chans
        for scale in range(self.scales):
            outs = self.first * 2**scale
            z = b.add(f"layer1.scale{scale + 1}", z, ConvUnit(chans, outs, 3, 2 if scale else 1), depth=1)
            maps[scale] = z, outs
            chans = outs
        return maps

    def _layer(self, b: NetBuilder, layer: int, maps: dict[int, tuple[str, int]]) -> dict[int, tuple[str, int]]:
        finest = self.block(layer)
        before = dict(maps)
        if finest > self.block(layer - 1):  # this layer begins a block
            for scale in range(finest, self.scales):
                z, chans = maps[scale]
                name = f"transition{finest}.scale{scale + 1}"
                before[scale] = b.add(name, z, ConvUnit(chans, chans // 2, 1), depth=1), chans // 2
        made = {}
        for scale in range(finest, self.scales):
            name, outs = f"layer{layer}.scale{scale + 1}", self.growth * 2**scale
            z, chans = before[scale]
            operands, down = {"kept": z}, before.get(scale - 1)
            if down is not None:
                operands["down"] = self._bottleneck(b, f"{name}.down", *down, outs // 2, scale - 1, 2)
            same = outs - (outs // 2 if down is not None else 0)
            operands["same"] = self._bottleneck(b, f"{name}.same", z, chans, same, scale, 1)
            made[scale] = b.join(f"{name}.join", operands, "concat"), chans + outs
        return made

    @staticmethod
    def _bottleneck(b: NetBuilder, name: str, z: str, ins: int, outs: int, scale: int, stride: int) -> str:
        inner = min(ins, 2**scale * outs)
        return b.chain(name, z, [ConvUnit(ins, inner, 1), ConvUnit(inner, outs, 3, stride)])

    def _classifier(self, b: NetBuilder, name: str, z: str, chans: int) -> str:
        z = b.chain(name, z, [ConvUnit(chans, self.hidden, 3, 2), ConvUnit(self.hidden, self.hidden, 3, 2)])
        z = b.add(f"{name}.pool", z, nn.AdaptiveAvgPool2d(1))
        z = b.add(f"{name}.flatten", z, nn.Flatten())
        return b.add(f"{name}.classifier", z, nn.Linear(self.hidden, self.num_classes), depth=1)
