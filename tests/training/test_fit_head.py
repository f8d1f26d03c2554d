"""A classifier fitted on frozen features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import images, tiny
from torch.nn import functional as F

from polypath.data.split import Split
from polypath.families.fractalnet import FractalNet
from polypath.training.build import build_net
from polypath.training.distributed import World
from polypath.training.fit_head import PENALTY, fit_head, logistic
from polypath.training.loop import train
from polypath.training.objectives import Whole

CPU = torch.device("cpu")
NET = FractalNet(filters=(8, 16, 32), columns=2, in_chans=1)


def test_a_fitted_classifier_knows_the_classes_before_training() -> None:
    recipe = tiny(model=NET, fit_head=160)
    net = build_net(recipe, classes=images().classes)
    drawn = {name: t.clone() for name, t in net.state_dict().items()}
    fit_head(net, recipe, images(), CPU, World())
    head = {name for name in drawn if not torch.equal(drawn[name], net.state_dict()[name])}
    assert head == {"head.classifier.weight", "head.classifier.bias"}
    split = images().train
    assert isinstance(split, Split)
    x = (split.images.float() / 255 - images().mean[0]) / images().std[0]
    net.eval()
    with torch.no_grad():
        right = (net(x).argmax(1) == split.labels).float().mean()
    assert right > 0.5  # of ten classes, on features of a network that was drawn


def test_the_fit_is_a_minimum_and_reads_features_as_they_are() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0]) + 4, torch.arange(60) % 3
    weight, bias = logistic(x, y, 3)
    std = x.std(0, correction=0)

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(x, weight, bias), y) + PENALTY / 2 * (weight * std).square().sum()

    least = loss(weight, bias)
    for _ in range(20):
        assert least <= loss(weight + 0.01 * torch.randn(3, 5) / std, bias + 0.01 * torch.randn(3)) + 1e-6


def test_a_run_begins_with_it(tmp_path: Path) -> None:
    base = {"model": NET, "objective": Whole(), "epochs": 1, "optim__lr": 0.0, "optim__weight_decay": 0.0}
    fitted = train(tiny(fit_head=160, **base), tmp_path / "fitted", data=images(), quiet=True)
    drawn = train(tiny(**base), tmp_path / "drawn", data=images(), quiet=True)
    assert fitted.test_error < drawn.test_error


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused() -> None:
    recipe = tiny(fit_head=10)
    net = build_net(recipe)
    net.reset_classifier(0)  # leaves an identity
    with pytest.raises(ValueError, match="fit_head = 10: the network's classifier is Identity, but must be Linear"):
        fit_head(net, recipe, images(), CPU, World())
