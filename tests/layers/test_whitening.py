"""The whitening layer: it whitens patches, is not trained, and is saved, extracted and exported with the network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import polypath as pp
from polypath.core.network import PathNet
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.timm_models import TimmModel
from polypath.fusion import fuse
from polypath.layers.conv import ConvUnit
from polypath.layers.whitening import set_whitening, whitening_unit

FRACTAL = FractalNet(filters=(4, 8), columns=2, whitening=12)


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    """Images whose pixels depend on their neighbours and whose channels depend on each other, in float64."""
    noise = torch.randn(40, 3, 14, 14, generator=rng, dtype=torch.float64)
    mixed = torch.einsum(
        "dc,nchw->ndhw", torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.0, 0.3, 2.0]]).double(), noise
    )
    return F.avg_pool2d(mixed, 3, 1) + torch.tensor([0.5, -1.0, 2.0])[:, None, None]


def answers(unit: ConvUnit, images: Tensor) -> Tensor:
    """The outputs of the layer's filters for each inner patch, before the ReLU: ``(2 n, patches)``."""
    return unit.conv(images)[:, :, 1:-1, 1:-1].transpose(0, 1).flatten(1)


@pytest.mark.parametrize("directions", [27, 10])
def test_the_covariance_of_patches_becomes_the_identity(directions: int, images: Tensor):
    unit = whitening_unit(3, directions).double()
    set_whitening(unit, images.split(7))
    found = answers(unit, images)
    assert torch.allclose(torch.cov(found[:directions], correction=0), torch.eye(directions).double(), atol=1e-8)
    assert torch.allclose(found.mean(1), torch.zeros(()).double(), atol=1e-8)
    assert torch.allclose(found[directions:], -found[:directions], atol=1e-12)
    assert torch.equal(unit(images), unit.conv(images).clamp(min=0))


def test_directions_that_are_kept_are_those_of_the_largest_variance(images: Tensor):
    unit = whitening_unit(3, 5).double()
    set_whitening(unit, [images])
    patches = F.unfold(images, 3).transpose(0, 1).flatten(1)  # an independent way to extract patches
    values, vectors = torch.linalg.eigh(torch.cov(patches, correction=0))
    kept = unit.conv.weight[:5].flatten(1) @ vectors  # along all eigenvectors, ascending
    assert torch.allclose(kept.abs().sum(0)[:-5], torch.zeros(22).double(), atol=1e-8)
    assert torch.allclose(kept[:, -5:].abs().sum(0).square(), 1 / values[-5:])


def test_directions_without_variance_stay_finite(images: Tensor):
    grey = images[:, :1].repeat(1, 3, 1, 1)
    unit = whitening_unit(3, 27).double()
    set_whitening(unit, [grey])
    assert unit.conv.weight.isfinite().all()
    with pytest.raises(ValueError, match="all patches of the training images are the same"):
        set_whitening(unit, [torch.full((4, 3, 8, 8), 0.3).double()])
    with pytest.raises(ValueError, match="at least 3x3 pixels"):
        set_whitening(unit, [torch.ones(4, 3, 2, 8).double()])


def whitened() -> PathNet:
    net = FRACTAL.build(0)
    unit = net.get_submodule("whitening")
    assert isinstance(unit, ConvUnit)
    set_whitening(unit, [torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))])
    return net.eval()


def test_it_is_not_trained():
    net = whitened().train()
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is None} == {
        "whitening.conv.weight",
        "whitening.conv.bias",
    }


def test_it_survives_saving_extracting_and_fusing(tmp_path: Path):
    net, x = whitened(), torch.randn(3, 3, 8, 8)
    pp.save(net, tmp_path / "net")
    again = pp.load(tmp_path / "net")
    assert torch.equal(again(x), net(x))
    assert not again.get_submodule("whitening").conv.weight.requires_grad  # pyright: ignore[reportAttributeAccessIssue]
    child = pp.extract(again, "column=1")
    assert torch.equal(child(x), net(x, paths="column=1"))
    assert torch.equal(child.get_submodule("whitening").conv.weight, net.state_dict()["whitening.conv.weight"])  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    pp.save(child, tmp_path / "child")
    assert torch.equal(pp.load(tmp_path / "child")(x), child(x))
    assert torch.allclose(fuse(net)(x), net(x), atol=1e-5)


@pytest.mark.slow  # a graph is written and loaded
def test_it_survives_export(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    net, x = whitened(), torch.randn(2, 3, 8, 8)
    net.config |= {"normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}, "image": {"size": [8, 8]}}
    bundle = pp.write_bundle(net, tmp_path / "bundle", ["column=1"])
    from polypath.deploy.runtimes import open_runtime

    run = open_runtime("onnxruntime", bundle).prepare("column=1", 2)
    assert torch.allclose(torch.from_numpy(run(x.numpy())), net(x, paths="column=1"), atol=1e-4)


def test_a_network_keeps_its_stages_paths_and_form():
    plain = dataclasses.replace(FRACTAL, whitening=0).build(0)
    net = whitened()
    assert net.in_chans == plain.in_chans == 3
    assert FRACTAL.stages() == dataclasses.replace(FRACTAL, whitening=0).stages()
    assert net.path_names == plain.path_names
    assert set(net.state_dict()) == set(plain.state_dict()) | {"whitening.conv.weight", "whitening.conv.bias"}
    assert str(net.paths("column=1")) == str(plain.paths("column=1"))


def test_more_directions_than_a_patch_has_are_refused():
    with pytest.raises(ValueError, match=r"CrescendoNet\.whitening = 577: must be a whole number from 0 to 576"):
        CrescendoNet(whitening=577)
    with pytest.raises(ValueError, match=r"TimmModel\.whitening = 2: must be 0, because another package's model"):
        TimmModel(whitening=2)
