"""Small networks with every kind of choice: sets of operands, switches, exits, gates."""

from __future__ import annotations

from collections.abc import Mapping

from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet

NETS: Mapping[str, Family] = {
    "crescendonet": CrescendoNet(widths=(4, 4), scale=2, hidden=(4,)),
    "fractalnet": FractalNet(filters=(4,), columns=3),
    "tied": FractalNet(filters=(4, 4), columns=2, own_norms=True),
    "resnet": ResNet(blocks=(1, 1, 1), width=4),
    "exits": ResNet(blocks=(1, 1, 1), width=4, exits=(1, 2)),
    "gates": RecursiveResNet(blocks=(2,), loops=(2,), width=4, gates="recursive"),
}
