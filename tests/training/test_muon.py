"""Muon against torch's own and against singular values; which parameters it optimises; resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Killed, assert_same, before_step, kill
from tiny import images, tiny
from torch import nn

from polypath.data.config import AugmentConfig
from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.loop import resume, train
from polypath.training.muon import COEFFICIENTS, STEPS, Muon, Together, orthogonal, products
from polypath.training.optim import OptimConfig, build_optimizer, conv_matrices, set_rate
from polypath.training.recipe import Recipe, replace
from polypath.training.schedules import ScheduleConfig

MUON: dict[str, Any] = {"kind": "muon", "lr": 0.1, "rest_lr": 0.02, "momentum": 0.8, "nesterov": True}


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7)])
def test_singular_values_go_through_the_polynomial_and_vectors_stay(shape: tuple[int, int], rng: torch.Generator):
    matrix = torch.randn(shape, generator=rng, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s, (a, b, c) = s / s.norm(), COEFFICIENTS
    for _ in range(STEPS):
        s = a * s + b * s**3 + c * s**5
    assert torch.allclose(orthogonal(matrix), u @ torch.diag(s) @ v, atol=1e-10)
    assert torch.allclose(orthogonal(3 * matrix), orthogonal(matrix))
    assert s.min() > 0.5
    assert s.max() < 1.21


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_on_matrices_it_is_torch_s_to_the_bit(shape: tuple[int, int], nesterov: bool, rng: torch.Generator):
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    options: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    steppers = Muon([ours], **options, dtype=torch.bfloat16), torch.optim.Muon([theirs], **options)
    for _ in range(4):
        ours.grad = theirs.grad = torch.randn(shape, generator=rng)
        for stepper in steppers:
            stepper.step()
        assert torch.equal(ours, theirs)
    assert (ours - 1).abs().max() > 0.05


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_conv_is_its_matrix(layout: torch.memory_format, rng: torch.Generator):
    conv = nn.Parameter(torch.randn(4, 3, 2, 2, generator=rng, dtype=torch.float64).contiguous(memory_format=layout))
    flat = nn.Parameter(conv.detach().flatten(1).clone())
    steppers = [Muon([p], lr=0.1, weight_decay=0.2) for p in (conv, flat)]
    for _ in range(3):
        grad = torch.randn(4, 3, 2, 2, generator=rng, dtype=torch.float64)
        conv.grad, flat.grad = grad.contiguous(memory_format=layout), grad.flatten(1)
        for stepper in steppers:
            stepper.step()
    assert torch.allclose(conv.flatten(1), flat, atol=1e-14)
    assert conv.is_contiguous(memory_format=layout)


def test_what_has_no_gradient_stays_and_products_are_counted(rng: torch.Generator):
    used, unused = (nn.Parameter(torch.randn(4, 2, 3, 3, generator=rng)) for _ in range(2))
    before = unused.detach().clone()
    muon = Muon([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.randn(4, 2, 3, 3, generator=rng)
    muon.step()
    assert torch.equal(unused, before)
    assert unused not in muon.state
    assert muon.macs == products(4, 18) == 5 * (4 * 4 * 18 + 4 * 4 * 4 + 4 * 4 * 18)


def test_it_takes_convs_that_do_not_read_the_image():
    net = FractalNet(filters=(4, 8), columns=2, in_chans=1).build(0)
    first = {"block1.column1.unit1.conv.weight", "block1.column2.unit1.conv.weight"}
    convs = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(conv_matrices(net)) == convs - first
    whitened = FractalNet(filters=(4, 8), columns=2, in_chans=1, whitening=4).build(0)
    assert set(conv_matrices(whitened)) == convs
    assert set(conv_matrices(ResNet(depth=8, width=4).build(0))) & {"stem.unit.conv.weight"} == set()
    with pytest.raises(ValueError, match=r"optim\.kind = 'muon': this network has no convs except the first"):
        build_optimizer(nn.Linear(2, 2), OptimConfig(**MUON))


def test_the_rest_is_stepped_by_sgd_at_its_own_rate(rng: torch.Generator):
    net = ResNet(depth=8, width=4).build(0).double()
    config = OptimConfig(**MUON, weight_decay=0.01, decay="matrices")
    optimizer = build_optimizer(net, config)
    assert isinstance(optimizer, Together)
    names, matrices = dict(net.named_parameters()), conv_matrices(net)
    rest = {name: p.detach().clone().requires_grad_() for name, p in names.items() if name not in matrices}
    alone = torch.optim.SGD(
        [
            {"params": [p for p in rest.values() if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in rest.values() if p.ndim == 1]},
        ],
        lr=0.01,
        momentum=0.8,
        nesterov=True,
    )
    set_rate(optimizer, 0.05)  # half of the base rate of both
    for _ in range(3):
        for name, p in names.items():
            p.grad = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            if name in rest:
                rest[name].grad = p.grad.clone()  # Nesterov's SGD writes into it
        optimizer.step()
        alone.step()
    for name, p in rest.items():
        assert torch.allclose(names[name], p, atol=1e-12), name
    assert {len(state) for state in optimizer.state.values()} == {1}
    assert len(optimizer.state) == len(names)


def test_its_products_count_as_training():
    recipe = fast(model=ResNet(depth=8, width=4, in_chans=1), channels_last=False)
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 2)
    engine.start_epoch(0)
    engine.step([(0, torch.ones(32, 1, 8, 8), torch.arange(32) % 10)], 32, 0, 0)
    stepped = [p for p in conv_matrices(engine.net).values() if p.grad is not None]  # a projection is not drawn
    muon = sum(products(len(p), p[0].numel()) for p in stepped)
    sgd = fast(model=recipe.model, optim=OptimConfig(), channels_last=False)
    plain = Engine(sgd, recipe.model.build(0), torch.device("cpu"), World(), 2)
    plain.start_epoch(0)
    plain.step([(0, torch.ones(32, 1, 8, 8), torch.arange(32) % 10)], 32, 0, 0)
    assert engine.flop.take() - plain.flop.take() == 2 * muon > 0


def fast(**changes: Any) -> Recipe:
    """All techniques of the recipes for small budgets in one tiny recipe."""
    techniques: dict[str, Any] = {
        "optim": OptimConfig(**MUON, scaling="sqrt", per_images=16),
        "schedule": ScheduleConfig(kind="one-cycle"),
        "label_smoothing": 0.2,
        "model.whitening": 5,
        "model.start": "identity",
        "data.augment": AugmentConfig(pad=1, pad_mode="reflect", mirror=True, alternate=True),
        "channels_last": True,
    }
    return replace(tiny(), techniques | changes)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calm") / "run"
    train(fast(), path, data=images(), quiet=True)
    return path


@pytest.mark.parametrize("step", [0, 7])  # before there is a checkpoint, and within an epoch
def test_killed_and_resumed_is_uninterrupted(step: int, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before_step(monkeypatch, step, kill)
    with pytest.raises(Killed):
        train(fast(), tmp_path / "run", data=images(), quiet=True)
    resume(tmp_path / "run", data=images(), quiet=True)
    assert_same(calm, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rest_lr": 0.0}, r"optim\.rest_lr = 0\.0: kind 'muon' needs a value above 0"),
        ({"momentum": 0.0, "nesterov": False}, r"optim\.momentum = 0\.0: kind 'muon' needs"),
        ({"dampening": 0.1, "nesterov": False}, r"optim\.dampening = 0\.1: kind 'muon' does not use it"),
        ({"kind": "sgd"}, r"optim\.rest_lr = 0\.02: only optim\.kind 'muon' uses it"),
        ({"kind": "adamw", "nesterov": False, "rest_lr": 0, "rest": "adamw"}, r"optim\.rest = 'adamw': only"),
        ({"rest": "muon"}, r"optim\.rest = 'muon': must be one of sgd, adamw"),
        ({"scaling": "cube"}, r"optim\.scaling = 'cube': must be one of none, linear, sqrt"),
        ({"scaling": "linear"}, r"optim\.per_images = 0 with optim\.scaling 'linear'"),
        ({"per_images": 64}, r"optim\.per_images = 64 with optim\.scaling 'none'"),
    ],
)
def test_unused_or_missing_settings_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**MUON | changes)


def test_shards_are_refused():
    with pytest.raises(ValueError, match=r"optim\.kind = 'muon' with parallel\.strategy 'fsdp'"):
        tiny(optim=OptimConfig(**MUON), parallel__strategy="fsdp")


def test_rates_follow_the_batch():
    rates = {
        scaling: OptimConfig(lr=0.1, scaling=scaling, per_images=64).base_rate(256) for scaling in ("linear", "sqrt")
    }
    assert rates == pytest.approx({"linear": 0.4, "sqrt": 0.2})
    assert OptimConfig(lr=0.1).base_rate(256) == 0.1
    recipe = tiny(batch_size=64, optim=OptimConfig(lr=0.1, scaling="linear", per_images=32))
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 2)
    assert engine.schedule.at(0) == pytest.approx(0.2)
