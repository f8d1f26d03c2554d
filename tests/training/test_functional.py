"""The functions in loops written by hand: each technique makes a small network learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from polypath import functional as pf
from polypath.core.execute import Trace
from polypath.core.network import PathNet
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet

CRESCENDO = CrescendoNet(widths=(8, 8), hidden=(16,), num_classes=3, in_chans=1, init="he")
FRACTAL = FractalNet(filters=(8, 8), columns=3, num_classes=3, in_chans=1)
DEEP = ResNet(depth=8, width=8, num_classes=3, in_chans=1, survival=0.5)
GATED = RecursiveResNet(blocks=(1, 2, 2), loops=(1, 2, 2), width=8, num_classes=3, in_chans=1)


def images() -> tuple[Tensor, Tensor]:
    """Three classes that differ in the position of a bright bar."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(48) % 3
    x = 0.3 * torch.randn(48, 1, 8, 8, generator=g)
    for i, label in enumerate(y.tolist()):
        x[i, :, 2 * label + 1] += 2.0
    return x, y


def gated_loss(net: PathNet, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    trace = Trace()
    return F.cross_entropy(net(x, trace=trace, generator=g), y) + 2.0 * pf.target_rate_loss(trace, 0.7)


def distilled_loss(net: PathNet, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    whole = net(x)
    return F.cross_entropy(whole, y) + pf.distillation_loss(net(x, paths="branches=1"), whole, 2.0)


def sandwich_loss(net: PathNet, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    whole = net(x)
    loss = F.cross_entropy(whole, y)
    ordered = [net.paths("column=1"), net.paths("column=2"), net.paths("column=3")]
    for paths in pf.sandwich(ordered, 1, g):
        with pf.batch_statistics(net.modules()):
            loss = loss + pf.alpha_divergence_loss(net(x, paths=paths), whole)
    return loss


def sampled(draw: Callable) -> Callable:
    return lambda net, x, y, g: F.cross_entropy(net(x, paths=draw(net, g)), y)


LOOPS = {
    "local": (CRESCENDO, sampled(lambda net, g: pf.local_drop_path(net.wiring, 0.3, g))),
    "global": (FRACTAL, sampled(lambda net, g: pf.global_drop_path(net, g))),
    "mixed": (FRACTAL, sampled(lambda net, g: pf.mixed_drop_path(net, 0.15, 0.5, g))),
    "uniform": (CRESCENDO, sampled(lambda net, g: pf.uniform_choice(net.wiring, g))),
    "stochastic depth": (DEEP, sampled(lambda net, g: pf.stochastic_depth(net.wiring, g))),
    "path-wise": (CRESCENDO, lambda net, x, y, g: F.cross_entropy(pf.path_wise_forward(net, x, "2"), y)),
    "gates": (GATED, gated_loss),
    "distillation": (CRESCENDO, distilled_loss),
    "sandwich": (FRACTAL, sandwich_loss),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_hand_written_loop_learns(name):
    spec, loss_of = LOOPS[name]
    net, (x, y), g = spec.build(seed=0), images(), torch.Generator().manual_seed(0)
    schedule = pf.ScheduleConfig(kind="cosine")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        first = float(F.cross_entropy(net(x), y))
    for step in range(32):
        for group in optimizer.param_groups:
            group["lr"] = pf.lr_at(schedule, step, base_lr=0.1, steps_per_epoch=8, epochs=4)
        optimizer.zero_grad()
        loss_of(net, x, y, g).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(F.cross_entropy(net(x), y)) < 0.7 * first


def test_the_index_names_what_it_has():
    assert sorted(pf.__all__) == pf.__all__
    assert all(hasattr(pf, name) for name in pf.__all__)


def test_gates_reach_their_target_rate():
    """From 85% open to 70%: the mean rate over gates and steps is within 3 points of the target."""
    net, (x, y), g = GATED.build(seed=0), images(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    rates = []
    for _ in range(100):
        trace = Trace()
        loss = F.cross_entropy(net(x, trace=trace, generator=g), y) + 2.0 * pf.target_rate_loss(trace, 0.7)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found = [float(rate.detach()) for rate in pf.gate_rates(trace).values()]
        rates.append(sum(found) / len(found))
    assert sum(rates[:3]) / 3 > 0.78
    assert sum(rates[-40:]) / 40 == pytest.approx(0.7, abs=0.03)
