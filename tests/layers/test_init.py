"""Initialisations have the standard deviations of their sources."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polypath.families.fractalnet import FractalNet
from polypath.families.fusenet import FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.layers.init import initialise

CONV, LINEAR = (3, 16, 3), (64, 10)
STD = {
    "he": ((2 / (9 * 16)) ** 0.5, (1 / 64 / 3) ** 0.5),
    "he_fan_in": ((2 / (9 * 3)) ** 0.5, (1 / 64 / 3) ** 0.5),
    "xavier": ((2 / (9 * 3 + 9 * 16)) ** 0.5, (2 / 74) ** 0.5),
    "xavier_fan_in": ((1 / (9 * 3)) ** 0.5, (1 / 64) ** 0.5),
}


@pytest.mark.parametrize("scheme", STD)
def test_the_spread_is_that_of_the_source(scheme: str) -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(*CONV), nn.Flatten(), nn.Linear(*LINEAR)) for _ in range(20)]
    for net in nets:
        initialise(net, scheme)
    weights = [dict(net.named_parameters()) for net in nets]
    assert not any(of[name].any() for of in weights for name in ("0.bias", "2.bias"))
    for layer, std in zip("02", STD[scheme], strict=True):
        drawn = torch.cat([of[f"{layer}.weight"].flatten() for of in weights])
        assert drawn.std().item() == pytest.approx(std, rel=0.03)
        if not scheme.startswith("he") or layer == "2":
            assert drawn.abs().max() <= 3**0.5 * std * (1 + 1e-6)  # uniform


def first_std(spec) -> float:
    weights = [next(spec.build(seed).parameters()).flatten() for seed in range(10)]
    return torch.cat(weights).std().item()


def test_families_draw_as_their_papers_say() -> None:
    """The first conv of 3 to 16 (FractalNet: 64) maps: fan-in of DFN's nets 0.272, of Caffe's Xavier 0.192."""
    for spec in (ResNet(depth=8), PlainNet(depth=5), FusedNet(depth=8), InceptionLike(depth=8), MergeAndRun(depth=8)):
        assert first_std(spec) == pytest.approx(0.272, rel=0.04), spec.family
    assert first_std(FractalNet(filters=(64,))) == pytest.approx(0.192, rel=0.04)
    assert first_std(RecursiveResNet(blocks=(1, 2), loops=(1, 2))) == pytest.approx(0.118, rel=0.04)
