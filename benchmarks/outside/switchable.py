"""A ResNet that runs in several *ways* with one set of weights: at shares of its width, or on smaller images.

With shares of the width, it is a slimmable network (Yu et al. 2019): a way uses the first channels of every conv, and
has its own batch-norms. With smaller images, the same convs run on fewer pixels, with separate batch-norms for each
size. In both cases, the network ends in a switch called ``ways``. A training step trains all ways together
(:class:`polypath.training.path_objectives.Exits` over :meth:`SwitchableResNet.way_texts`).

The ResNet is the one for CIFAR (He et al. 2016, §4.2), with projections where the resolution changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, number, whole
from polypath.families.base import Family

WAYS = "ways"


class SlimUnit(nn.Module):
    """A conv, batch-norm and ReLU of maps ``(N, C, H, W)``. Each variant uses the first channels and its own norm.

    Args:
        chans: input and output channels, by variant. The conv is as wide as the widest variant.
    """

    def __init__(self, chans: Mapping[str, tuple[int, int]], kernel: int, stride: int, *, act: bool = True) -> None:
        super().__init__()
        self.chans, self.act = dict(chans), act
        most_in, most_out = (max(pair[i] for pair in chans.values()) for i in (0, 1))
        self.conv = nn.Conv2d(most_in, most_out, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.ModuleDict({name: nn.BatchNorm2d(outs) for name, (_, outs) in chans.items()})

    def forward(self, x: Tensor, variant: str) -> Tensor:
        ins, outs = self.chans[variant]
        x = F.conv2d(x, self.conv.weight[:outs, :ins], None, self.conv.stride, self.conv.padding)
        x = self.norm[variant](x)
        return F.relu(x, inplace=True) if self.act else x

    def keep_variants(self, variants: Collection[str]) -> None:
        """Remove the norms of all variants except ``variants``, and the channels that only the removed ones use."""
        self.chans = {name: pair for name, pair in self.chans.items() if name in variants}
        self.norm = nn.ModuleDict({name: self.norm[name] for name in self.chans})
        ins, outs = (max(pair[i] for pair in self.chans.values()) for i in (0, 1))
        self.conv.weight = nn.Parameter(self.conv.weight.detach()[:outs, :ins].clone())
        self.conv.in_channels, self.conv.out_channels = ins, outs


class SlimLinear(nn.Linear):
    """A linear layer that uses as many of its first features as the input has."""

    def __init__(self, ins: Mapping[str, int], outs: int) -> None:
        super().__init__(max(ins.values()), outs)
        self.ins = dict(ins)

    def forward(self, x: Tensor, variant: str = "") -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)

    def keep_variants(self, variants: Collection[str]) -> None:
        """Remove the features that none of ``variants`` uses."""
        self.ins = {name: n for name, n in self.ins.items() if name in variants}
        self.in_features = max(self.ins.values())
        self.weight = nn.Parameter(self.weight.detach()[:, : self.in_features].clone())


class Resize(nn.Module):
    """A module that downscales square images (bilinear, with antialiasing). It uses two matrix products, which every
    runtime supports."""

    def __init__(self, side: int, to: int) -> None:
        super().__init__()
        rows = F.interpolate(torch.eye(side)[None, None], (to, side), mode="bilinear", antialias=True)
        self.register_buffer("rows", rows[0, 0])

    def forward(self, x: Tensor) -> Tensor:
        rows = self.get_buffer("rows")
        return rows @ x @ rows.T


@dataclass(frozen=True)
class Way:
    """A way to run the network: its label, its share of the width, and the side of its images in pixels."""

    label: str
    share: float
    size: int

    def chans(self, chans: int) -> int:
        """Return how many of ``chans`` channels this way uses."""
        return max(1, round(self.share * chans))


@dataclass(frozen=True, kw_only=True)
class SwitchableResNet(Family, name="bench-switchable-resnet"):
    """A ResNet with several ways to run; see the module's docstring.

    Args:
        blocks: number of blocks of each group. Each group halves the resolution of the previous group.
        width: number of channels of the first group. It doubles in each following group.
        shares: shares of the width, ascending to 1.
        sizes: sides of the processed images, in pixels, ascending to that of the input.
    """

    blocks: tuple[int, ...] = (2, 2, 2)
    width: int = 16
    shares: tuple[float, ...] = (1.0,)
    sizes: tuple[int, ...] = (32,)
    init: str = "he_fan_in"

    paper = "Slimmable Neural Networks, ICLR 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            blocks=each(whole(1)),
            width=whole(1),
            shares=each(number(above=0, high=1)),
            sizes=each(whole(1)),
        )
        for name in ("shares", "sizes"):
            values = getattr(self, name)
            if not values or any(b <= a for a, b in pairwise(values)):
                raise ValueError(f"{name} = {values}: must be at least one number, in ascending order")
        if self.shares[-1] != 1.0:
            raise ValueError(f"shares = {self.shares}: the last share must be 1")

    def ways(self) -> list[Way]:
        """Return all ways. The last way is the whole network."""
        found = []
        for share in self.shares:
            for size in self.sizes:
                width = f"w{round(100 * share)}" if len(self.shares) > 1 or len(self.sizes) == 1 else ""
                found.append(Way(width + (f"s{size}" if len(self.sizes) > 1 else ""), share, size))
        return found

    def way_texts(self) -> list[str]:
        """Return the texts of the paths that run each way, the whole network last."""
        return [*self.path_names(), "whole"]

    def path_names(self) -> list[str]:
        return [f"{WAYS}={way.label}" for way in self.ways()[:-1]]

    def path_sets(self) -> dict[str, list[str]]:
        return {WAYS: self.way_texts()}

    def build_graph(self, b: NetBuilder) -> str:
        return b.join(WAYS, {way.label: self._way(b, way) for way in self.ways()}, kind="switch")

    def _way(self, b: NetBuilder, way: Way) -> str:
        """Add all nodes of one way. They run modules that all ways share. Return the last node."""

        def unit(name: str, z: str, ins: int, outs: int, kernel: int, stride: int, act: bool) -> str:
            def make() -> nn.Module:
                images = name == "stem.unit"  # the stem reads images, which have all channels in every way
                chans = {w.label: (ins if images else w.chans(ins), w.chans(outs)) for w in self.ways()}
                return SlimUnit(chans, kernel, stride, act=act)

            return self._add(b, way, name, z, make)

        z = b.input
        if way.size != self.sizes[-1]:
            z = b.add(f"{way.label}.resize", z, Resize(self.sizes[-1], way.size))
        z = unit("stem.unit", z, self.in_chans, self.width, 3, 1, True)
        ins = self.width
        for group, blocks in enumerate(self.blocks):
            outs = self.width * 2**group
            for block in range(1, blocks + 1):
                name, stride = f"group{group + 1}.block{block}", 2 if group and block == 1 else 1
                deep = unit(f"{name}.unit1", z, ins, outs, 3, stride, True)
                deep = unit(f"{name}.unit2", deep, outs, outs, 3, 1, False)
                if stride > 1:
                    z = unit(f"{name}.shortcut", z, ins, outs, 1, stride, False)
                z = b.join(f"{way.label}.{name}.join", {"L": z, "R": deep}, "sum")
                z = b.add(f"{way.label}.{name}.relu", z, nn.ReLU(), at=f"{name}.relu")
                ins = outs
        z = b.add(f"head.{way.label}.pool", z, nn.AdaptiveAvgPool2d(1), at="head.pool")
        z = b.add(f"head.{way.label}.flatten", z, nn.Flatten(), at="head.flatten")
        last = {w.label: w.chans(ins) for w in self.ways()}
        return self._add(b, way, "head.classifier", z, lambda: SlimLinear(last, self.num_classes))

    @staticmethod
    def _add(b: NetBuilder, way: Way, name: str, z: str, make: Callable[[], nn.Module]) -> str:
        known = b.modules.get(name)
        node = f"head.{way.label}.classifier" if name == "head.classifier" else f"{way.label}.{name}"
        return b.add(node, z, known if known is not None else make(), depth=1, at=name, variant=way.label)
