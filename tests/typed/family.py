"""A user's own family; as ``script.py``."""

from dataclasses import dataclass
from typing import assert_type

from torch import nn

import polypath as pp
from polypath.layers.conv import ConvUnit


@dataclass(frozen=True, kw_only=True)
class Twins(pp.Family, name="twins"):
    """Two conv units side by side."""

    width: int = 8

    def build_graph(self, b: pp.NetBuilder) -> str:
        sides = {n: b.add(f"unit{n}", b.input, ConvUnit(self.in_chans, self.width), depth=1) for n in "12"}
        z = b.add("head.pool", b.join("both", sides), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        return b.add("head.classifier", z, nn.Linear(self.width, self.num_classes))

    def path_names(self) -> list[str]:
        return ["both=1", "both=2"]


assert_type(Twins(width=4).build(seed=0), pp.PathNet)
assert_type(Twins().width, int)
