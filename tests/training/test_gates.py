"""The target-rate loss, and the small functions of ensembles and distillation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from conftest import gradient
from polypath.analysis.loops import loops_taken
from polypath.core.builder import WiringBuilder
from polypath.core.execute import Trace
from polypath.core.wiring import Gate
from polypath.families.recursive import RecursiveResNet
from polypath.training.advice import drifted_gates
from polypath.training.distill import distillation_loss
from polypath.training.distributed import World
from polypath.training.gates import Watched, gate_rates, target_rate_loss
from polypath.training.loop import train
from polypath.training.meter import Meter
from polypath.training.objectives import StepInfo
from polypath.training.path_objectives import TargetRate
from polypath.training.recipe import replace
from polypath.training.recipes import get_recipe
from polypath.training.run import RunFolder
from polypath.training.snapshots import average_probabilities, ensemble_probabilities

CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def trace_of(*gates) -> Trace:
    trace = Trace()
    trace.gates.extend(gates)
    return trace


def test_rates_among_those_that_reach_a_gate_and_among_all():
    reached, opened = torch.tensor([1.0, 1, 1, 1]), torch.tensor([1.0, 1, 0, 1], requires_grad=True)
    again, second = torch.tensor([1.0, 1, 0, 1]), torch.tensor([1.0, 0, 0, 0])
    trace = trace_of(("block", "loop1", reached, opened), ("block", "loop2", again, second))
    reaching = gate_rates(trace)
    assert float(reaching["block", "loop1"].detach()) == pytest.approx(3 / 4)
    assert float(reaching["block", "loop2"].detach()) == pytest.approx(1 / 3)
    assert float(gate_rates(trace, "all")["block", "loop2"]) == pytest.approx(1 / 4)
    loss = target_rate_loss(trace, 0.7)
    assert float(loss.detach()) == pytest.approx(((0.7 - 3 / 4) ** 2 + (0.7 - 1 / 3) ** 2) / 2)
    assert float(target_rate_loss(trace, 0.7, "all").detach()) == pytest.approx(
        ((0.7 - 3 / 4) ** 2 + (0.7 - 1 / 4) ** 2) / 2
    )
    loss.backward()
    assert opened.grad is not None
    assert opened.grad == pytest.approx([-2 * (0.7 - 0.75) / 4 / 2] * 4)


def test_a_gate_that_no_sample_reaches_is_ignored():
    nobody = ("block", "loop2", torch.zeros(4), torch.zeros(4))
    somebody = ("block", "loop1", torch.ones(4), torch.tensor([1.0, 0, 0, 0]))
    assert list(gate_rates(trace_of(somebody, nobody))) == [("block", "loop1")]
    assert float(target_rate_loss(trace_of(somebody, nobody), 0.5)) == pytest.approx(0.25**2)
    assert float(target_rate_loss(trace_of(nobody), 0.5)) == 0.0


def test_a_step_with_gates_never_waits_for_the_device():
    net = RecursiveResNet(blocks=(1, 2, 2), loops=(1, 2, 2), in_chans=1).build(0).to("meta").train()
    x, y = torch.empty(4, 1, 16, 16, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    (result,) = TargetRate().bind(net).passes(x, y, StepInfo(0, 0, 1, 1, torch.Generator()))
    assert sum(name.startswith("rate/") for name in result.parts) == 4
    with pytest.raises(RuntimeError, match="meta"):  # it would have been seen
        float(result.loss.detach())


def test_rates_of_nan_are_left_out_of_averages_but_losses_are_not():
    meter = Meter(World())
    for step, values in enumerate(({"loss": 1.0, "rate/a": 0.5}, {"loss": 3.0, "rate/a": math.nan}, {"loss": 5.0})):
        for name, value in values.items():
            meter.add(step, name, torch.tensor(value))
    assert [row for _, row in meter.flush()] == [{"loss": 1.0, "rate/a": 0.5}, {"loss": 3.0}, {"loss": 5.0}]
    assert meter.means() == {"loss": 3.0, "rate/a": 0.5}
    meter.add(3, "loss", torch.tensor(math.nan))
    assert math.isnan(meter.flush()[0][1]["loss"])


def test_gates_on_target_cost_nothing_and_off_target_something():
    half = ("b", "l", torch.ones(4), torch.tensor([1.0, 1, 0, 0]))
    assert float(target_rate_loss(trace_of(half), 0.5)) == 0.0
    assert float(target_rate_loss(trace_of(half), 0.9)) > 0.0


@pytest.mark.parametrize("target", [0.7, 0.3])
def test_gates_reach_their_target_rate(target):
    net = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1).build(0).train()
    bound, optimizer = TargetRate(target=target, weight=2.0).bind(net), torch.optim.Adam(net.parameters(), 0.02)
    draw, seen = torch.Generator().manual_seed(0), []
    for step in range(80):
        x = torch.randn(64, 1, 8, 8, generator=draw)
        y = (x.mean((1, 2, 3)) > 0).long()
        (result,) = bound.passes(x, y, StepInfo(0, step, 80, 1, draw))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        seen.append([value for name, value in result.parts.items() if name.startswith("rate/")])
    began, ended = (torch.tensor(part).mean(0) for part in (seen[:1], seen[-30:]))
    assert len(ended) == 2
    assert (began - target).abs().max() > 0.1  # 85% open
    assert (ended - target).abs().max() <= 0.03


@pytest.mark.parametrize("over", ["reaching", "all"])
def test_gate_rates_are_measured_without_noise(over):
    net = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1, gate_open=0.5).build(0).eval()
    for name, module in net.named_modules():
        if name.endswith(".gate.last") and isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    draw, watched = torch.Generator().manual_seed(0), Watched(net, over)
    batches = [(torch.randn(n, 1, 8, 8, generator=draw), torch.zeros(n).long()) for n in (12, 8)]
    with torch.no_grad():
        assert all(torch.equal(watched(x), net(x)) for x, _ in batches)
    rows = loops_taken(net, batches).gates
    column = rows["rate" if over == "reaching" else "share"]
    expected = {(s, k): rate for s, k, rate in zip(rows["switch"], rows["loop"], column, strict=True)}
    assert watched.rates(World()) == pytest.approx(expected)
    assert any(0.0 < rate < 1.0 for rate in expected.values())


def test_a_run_records_its_gates_rates_without_noise(tmp_path):
    recipe = replace(get_recipe("drnn-digits"), {"epochs": 1, "data.train_images": 200, "trace_test": True})
    train(recipe, tmp_path / "run", quiet=True)
    (row,) = RunFolder.open(tmp_path / "run").metrics()
    gates = {name.removeprefix("rate/") for name in row if name.startswith("rate/")}
    for prefix in ("val_rate/", "traced_test_rate/"):
        found = {name.removeprefix(prefix): rate for name, rate in row.items() if name.startswith(prefix)}
        assert found
        assert found.keys() <= gates
        assert all(0.0 <= rate <= 1.0 for rate in found.values())


def test_gates_that_drift_from_their_target_are_reported():
    row = {"rate/a/1": 0.2, "val_rate/a/1": 0.72, "val_rate/b/1": 0.95}
    assert drifted_gates({k: v for k, v in row.items() if "b" not in k}, 0.7) is None
    assert drifted_gates({"rate/a/1": 0.2}, 0.7) is None
    text = drifted_gates(row, 0.7)
    assert text is not None
    assert "0.72 to 0.95" in text
    assert "--gate-rate 0.7" in text


@pytest.mark.slow
def test_gates_of_a_small_run_reach_their_target_rate(tmp_path):
    """The run whose files are in docs/results/drnn-digits."""
    train(get_recipe("drnn-digits"), tmp_path / "run", quiet=True)
    last = RunFolder.open(tmp_path / "run").metrics()[-1]
    rates = {name: value for name, value in last.items() if name.startswith("rate/")}
    assert len(rates) == 10
    assert all(abs(value - 0.7) <= 0.03 for value in rates.values()), rates


def test_no_gate_and_bad_settings_are_refused():
    with pytest.raises(ValueError, match="no gate has run"):
        target_rate_loss(Trace(), 0.5)
    with pytest.raises(ValueError, match="reaching, all"):
        gate_rates(Trace(), "some")  # pyright: ignore[reportArgumentType] (wrong on purpose)
    with pytest.raises(ValueError, match="target = 2"):
        target_rate_loss(Trace(), 2.0)


def test_members_are_averaged_after_softmax():
    a, b = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64).split(1)
    mean = average_probabilities([a, b])
    torch.testing.assert_close(mean, (a.softmax(1) + b.softmax(1)) / 2, **CLOSE)
    assert not torch.allclose(mean, ((a + b) / 2).softmax(1))
    torch.testing.assert_close(average_probabilities([a]), a.softmax(1), **CLOSE)
    with pytest.raises(ValueError, match="at least one"):
        average_probabilities([])
    nets = [torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()]
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(ensemble_probabilities(nets, x), average_probabilities(net(x) for net in nets))


def test_distillation_is_zero_at_the_teacher_and_teaches_no_teacher():
    g = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 5, generator=g, dtype=torch.float64, requires_grad=True)
    assert float(distillation_loss(teacher, teacher, 3.0).detach()) == pytest.approx(0.0, abs=1e-12)
    student = torch.randn(4, 5, generator=g, dtype=torch.float64, requires_grad=True)
    distillation_loss(student, teacher, 3.0).backward()
    assert teacher.grad is None
    expected = 3.0 * (torch.softmax(student / 3, 1) - torch.softmax(teacher / 3, 1)) / 4
    torch.testing.assert_close(student.grad, expected.detach(), **CLOSE)
    with pytest.raises(ValueError, match="temperature = 0"):
        distillation_loss(student, teacher, 0.0)


class Gated(torch.nn.Module):
    """Stands for a dynamic network: one switch, a gate that opens for samples with a positive first pixel."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        b = WiringBuilder()
        skip = b.unit("stem", b.input)
        loop = b.unit("loop", skip)
        gates = (Gate("gate", skip, "1"),)
        self.wiring = b.wiring(b.join("switch", {"0": skip, "1": loop}, "switch", gates=gates))

    def forward(self, x, trace, generator):
        self.drawn = torch.rand(1, generator=generator)
        flat = x.flatten(1)
        opened = torch.sigmoid(flat[:, 0] * self.linear.weight.sum())
        trace.gates.append(("switch", "1", torch.ones_like(opened), opened))
        return self.linear(flat) * opened[:, None]


def test_the_target_rate_objective_adds_the_gates_loss():
    net, g = Gated().double(), torch.Generator().manual_seed(3)
    x, y = torch.randn(6, 1, 2, 2, dtype=torch.float64), torch.randint(0, 3, (6,))
    bound = TargetRate(target=0.2, weight=1.5).bind(net)  # pyright: ignore[reportArgumentType] (it is called as one)
    (part,) = bound.passes(x, y, StepInfo(0, 0, 1, 1, g))
    part.loss.backward()
    ours = gradient(net.linear.weight).clone()
    net.zero_grad()
    trace = Trace()
    logits = net(x, trace, torch.Generator())
    rate = trace.gates[0][3].mean()
    expected = torch.nn.functional.cross_entropy(logits, y) + 1.5 * (0.2 - rate) ** 2
    expected.backward()
    torch.testing.assert_close(part.loss, expected, **CLOSE)
    torch.testing.assert_close(ours, net.linear.weight.grad, **CLOSE)
    assert float(part.parts["rate/switch/1"]) == pytest.approx(float(rate.detach()), rel=1e-12)
