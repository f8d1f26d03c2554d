"""A run computes its network's whitening layer from its training images, once, and all ranks get the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import images, tiny
from torch import Tensor

import polypath as pp
from polypath.core.network import PathNet
from polypath.layers.conv import ConvUnit
from polypath.training.build import build_net, eval_batches, whiten
from polypath.training.distributed import World
from polypath.training.loop import train

RECIPE = tiny(model__whitening=4, epochs=1)


def unit(net: PathNet) -> ConvUnit:
    found = net.get_submodule("whitening")
    assert isinstance(found, ConvUnit)
    return found


def made(**changes: Any) -> PathNet:
    recipe = tiny(model__whitening=4, **changes)
    net = build_net(recipe)
    whiten(net, recipe, images(), World())
    return net


def test_patches_of_the_training_images_are_white():
    net, parts = made(), []
    recipe = tiny(model__whitening=4)
    for x, _ in eval_batches("train", images(), recipe, torch.device("cpu"), World()):
        parts.append(unit(net).conv(x)[:, :4, 1:-1, 1:-1].transpose(0, 1).flatten(1))
    assert torch.allclose(torch.cov(torch.cat(parts, 1).double()), torch.eye(4).double(), atol=1e-3)
    assert not torch.equal(unit(made(seed=1)).conv.weight, unit(build_net(recipe)).conv.weight)


def test_a_run_trains_behind_it_and_reports_it(tmp_path: Path):
    train(RECIPE, tmp_path / "run", data=images(), quiet=True)
    net = pp.load(tmp_path / "run" / "model")
    expected = made(epochs=1)
    assert torch.equal(unit(net).conv.weight, unit(expected).conv.weight)
    first, before = "block1.branch2.unit1.conv.weight", expected.state_dict()
    assert not torch.equal(net.state_dict()[first], before[first])


def test_ranks_get_the_first_ranks_whitening():
    class Second(World):
        def gather(self, value: Any) -> list[Any]:
            return [{name: torch.full_like(t, 7.0) for name, t in value.items()}, value]

    net = build_net(RECIPE)
    whiten(net, RECIPE, images(), Second(rank=1, size=2))
    values: list[Tensor] = list(unit(net).conv.state_dict().values())
    assert all((value == 7).all() for value in values)


@pytest.mark.parametrize("path", ["whole", "branches=1"])
def test_a_network_that_is_started_from_keeps_its_own(path: str, tmp_path: Path):
    net = RECIPE.model.build(5)
    pp.save(net, tmp_path / "net")
    recipe = tiny(model__whitening=4, init=str(tmp_path / "net"), path=path)
    found = build_net(recipe)
    whiten(found, recipe, images(), World())
    assert torch.equal(unit(found).conv.weight, unit(net).conv.weight)
