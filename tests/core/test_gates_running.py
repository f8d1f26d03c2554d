"""Gated switches, gates and the batch-norm of loops."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import polypath as pp
from conftest import assert_close, gradient, part, randomise_norms
from polypath.core.batchnorm import buffers
from polypath.core.builder import NetBuilder, WiringBuilder
from polypath.core.execute import Trace, loops_run, run_steps
from polypath.core.gating import decide, straight_through
from polypath.core.plan import check_gates
from polypath.core.recalibrate import recalibrate
from polypath.core.wiring import Gate, Wiring
from polypath.layers.gates import GateUnit
from polypath.layers.lvbn import LoopUnit, normalise
from polypath.profiling.expected import expected_loops, loop_shares, node_shares
from polypath.training.gates import gate_rates, target_rate_loss


class Wants(nn.Module):
    """A gate that opens loop ``k`` for images whose first value is at least ``k``, whatever the noise."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.tensor(100.0))

    def forward(self, x):
        open_ = (x[:, 0, 0, 0] - self.k + 0.5) * self.weight
        return torch.stack([torch.zeros_like(open_), open_], 1)


def tiny(loops=3, gated=None, reads_input=False, **unit) -> pp.PathNet:
    """A block of up to ``loops`` loops; the first value of each image sets how many loops it takes."""
    b = NetBuilder()
    z = b.add("stem", b.input, nn.Conv2d(3, 4, 1))
    loop = LoopUnit(4, 4, variants=[f"loop{k}" for k in range(1, loops + 1)], **unit)
    ends, gates = {"0": z}, []
    for k in range(1, loops + 1):
        y = b.add(f"loop{k}.unit", ends[str(k - 1)], loop, depth=1, at="unit", variant=f"loop{k}")
        sides = {"L": ends[str(k - 1)], "R": y} | ({"S": "stem"} if reads_input and k > 1 else {})
        ends[str(k)] = b.join(f"loop{k}.join", sides, "sum")
        if gated is None or k in gated:
            b.modules[f"gate{k}"] = Wants(k)
            gates.append(Gate(f"gate{k}", b.input, str(k)))
    z = b.join("loops", ends, "switch", gates=tuple(gates))
    z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net = b.net(b.add("head.classifier", z, nn.Linear(4, 5)))
    return randomise_norms(net)


def wanting(*numbers: int) -> torch.Tensor:
    x = torch.randn(len(numbers), 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = torch.tensor(numbers, dtype=torch.float32)
    return x


def rows_of(net: pp.PathNet, path: str) -> list[int]:
    """How many samples each call of a module has; filled while ``net`` runs."""
    rows: list[int] = []
    net.get_submodule(path).register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    return rows


# --- evaluation ----------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("reads_input", [False, True])
def test_every_sample_runs_the_loops_that_its_gates_open(reads_input):
    net = tiny(reads_input=reads_input).eval()
    numbers = (2, 0, 3, 1, 0, 3, 1, 2, 2)
    x, rows, trace = wanting(*numbers), rows_of(net, "unit"), pp.Trace(frozenset({"loops", "loop3.join"}))
    out = net(x, trace=trace)
    assert rows == [7, 5, 2]  # those that want at least 1, 2, 3
    assert loops_run(trace).tolist() == list(numbers)
    assert [(switch, label) for switch, label, _, _ in trace.gates] == [("loops", "1"), ("loops", "2"), ("loops", "3")]
    assert trace.gates[1][2].tolist() == [float(n >= 1) for n in numbers]
    assert trace.gates[1][3].tolist() == [float(n >= 2) for n in numbers]
    assert len(trace.values["loops"]) == len(x)
    assert len(trace.values["loop3.join"]) == 2  # of the samples that ran it
    for i, n in enumerate(numbers):
        alone = net(x[i : i + 1], paths=f"loops={n}")
        torch.testing.assert_close(out[i : i + 1], alone, rtol=1e-5, atol=1e-5)
        other = net(x[i : i + 1], paths=f"loops={(n + 1) % 4}")
        assert not torch.allclose(alone, other, atol=1e-3)


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("reads_input", [False, True])
def test_one_graph_of_all_loops_gives_what_the_gates_decide(reads_input):
    net, x = tiny(reads_input=reads_input).eval(), wanting(0, 3, 1, 2, 0, 3)
    decided, kept = Trace(), Trace()
    with torch.no_grad():
        wanted = net(x, trace=decided)
        found = run_steps(net, net.plan(None), {"input": x}, gates="keep", trace=kept)[net.wiring.output]
        assert_close(found, wanted)
        assert not torch.allclose(found, net(x, paths="loops=3"))
        for (*names, reached, opened), (*same, reached_too, opened_too) in zip(decided.gates, kept.gates, strict=True):
            assert names == same
            assert torch.equal(reached, reached_too)
            assert torch.equal(opened, opened_too)
        others = wanting(3, 0, 1)  # a trace that recorded decisions would answer them as it did x
        traced: Any = torch.jit.trace(net, x)
        assert_close(traced(others), net(others))


def test_loops_that_no_sample_reaches_do_not_run():
    net = tiny().eval()
    rows, trace = rows_of(net, "unit"), pp.Trace()
    out = net(wanting(1, 0, 1), trace=trace)
    assert rows == [2]
    assert [opened.sum().item() for _, _, _, opened in trace.gates] == [2.0, 0.0, 0.0]
    rows.clear()
    assert torch.equal(net(wanting(0, 0)), net(wanting(0, 0), paths="loops=0"))
    assert rows == []
    assert torch.equal(net(wanting(3, 3, 3)), net(wanting(3, 3, 3), paths="loops=3"))
    assert rows == [3] * 6
    assert out.shape == (3, 5)
    assert net(wanting()).shape == (0, 5)


@torch.inference_mode()
def test_a_loop_without_a_gate_runs_for_all_samples_that_reach_it():
    net = tiny(gated={2}).eval()  # the first pass is free, the third follows the second
    rows, trace = rows_of(net, "unit"), pp.Trace()
    out = net(wanting(0, 2, 1, 3), trace=trace)
    assert rows == [4, 2, 2]
    assert len(trace.gates) == 1
    torch.testing.assert_close(out[:1], net(wanting(0, 2, 1, 3)[:1], paths="loops=1"))
    torch.testing.assert_close(out[1:2], net(wanting(0, 2, 1, 3)[1:2], paths="loops=3"))


def split_gates(net: pp.PathNet, x: torch.Tensor) -> pp.PathNet:
    """Give every gate weights that distinguish samples, and biases that let half of the samples pass its first loop."""
    g, seen = torch.Generator().manual_seed(1), []
    for gate in [m for m in net.modules() if isinstance(m, GateUnit)]:
        with torch.inference_mode():
            nn.init.normal_(gate.last.weight, std=1.0, generator=g)
            handle = gate.register_forward_hook(lambda _, __, out: seen.append(out))
            seen.clear()
            net.eval()(x)
            handle.remove()
            if seen:
                lead = (seen[0][:, 1] - seen[0][:, 0]).sort().values
                gate.last.bias[1] -= lead[len(lead) // 2 - 1 : len(lead) // 2 + 1].mean()  # no sample on the edge
    return net


@pytest.fixture(scope="module")
def x64():
    return torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def split(x64):
    net = pp.create_model("dr_resnet_small", width=8, num_classes=5, seed=3)
    return split_gates(randomise_norms(net), x64)


@torch.inference_mode()
def test_the_answer_does_not_depend_on_the_other_samples_of_the_batch(split, x64):
    trace = pp.Trace()
    together = split.eval()(x64, trace=trace)
    assert len(loops_run(trace).unique()) >= 4  # samples do run different loops
    alone = torch.cat([split(x64[i : i + 1]) for i in range(64)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together, split(x64, paths="loops=max"), atol=1e-2)


@torch.inference_mode()
def test_gates_forced_open_or_shut_equal_fixed_paths_to_the_bit(split, x64):
    net, x = copy.deepcopy(split).eval(), x64[:6]
    half = net(x)
    for open_, text in ((50.0, "loops=max"), (-50.0, "loops=0")):
        for gate in [m for m in net.modules() if isinstance(m, GateUnit)]:
            gate.last.bias[1] = open_ * 1e3
        assert torch.equal(net(x), net(x, paths=text))
        assert not torch.equal(net(x), half)


# --- training ------------------------------------------------------------------------------------------------


def test_in_training_all_samples_run_and_shut_gates_undo_it():
    net, numbers = tiny(statistics="all").train(), (2, 0, 3, 1)
    x, rows, trace = wanting(*numbers), rows_of(net, "unit"), pp.Trace(frozenset({"stem", "loop1.join", "loops"}))
    net(x, trace=trace, generator=torch.Generator().manual_seed(0))
    assert rows == [4, 4, 4]
    assert loops_run(trace).tolist() == list(numbers)
    assert torch.equal(trace.values["loops"][1], trace.values["stem"][1])
    assert torch.equal(trace.values["loops"][3], trace.values["loop1.join"][3])
    assert not torch.equal(trace.values["loops"][0], trace.values["loop1.join"][0])


def test_the_gradient_goes_straight_through_the_gates():
    """x_k = (1 − a_k)·x_{k−1} + a_k·block_k(x_{k−1}), a_k = g_1·…·g_k, against the explicit computation."""
    net = tiny(loops=2, statistics="all").train().double()
    for k in (1, 2):
        part(net, f"gate{k}").weight.data.fill_(0.7)
    x = wanting(2, 0, 3, 1, 1, 2).double()
    twin, trace = copy.deepcopy(net), pp.Trace()
    out = net(x, trace=trace, generator=torch.Generator().manual_seed(4))
    out.square().sum().backward()

    g = torch.Generator().manual_seed(4)
    z, a = twin.get_submodule("stem")(x), 1.0
    for k in (1, 2):
        logits = twin.get_submodule(f"gate{k}")(x)
        noise = -torch.empty(6, 2).exponential_(generator=g).log()
        soft = (logits.float() + noise).softmax(1)[:, 1]
        gate = (soft > 0.5).float() - soft.detach() + soft
        a = a * gate
        run = z + twin.get_submodule("unit")(z, variant=f"loop{k}")
        z = (1 - a.double().view(-1, 1, 1, 1)) * z + a.double().view(-1, 1, 1, 1) * run
    expected = twin.get_submodule("head.classifier")(z.mean((2, 3)))
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6, msg=name)
    assert all(abs(gradient(part(net, f"gate{k}").weight)) > 1e-3 for k in (1, 2))
    assert 0 < loops_run(trace).sum() < 12  # some gates were open and some shut


def test_the_target_rate_loss_reads_the_trace():
    net, trace = tiny(loops=2).train(), pp.Trace()
    net(wanting(2, 0, 1, 1), trace=trace, generator=torch.Generator().manual_seed(0))
    rates = {key: float(rate.detach()) for key, rate in gate_rates(trace).items()}
    assert rates == pytest.approx({("loops", "1"): 3 / 4, ("loops", "2"): 1 / 3})
    assert float(gate_rates(trace, "all")["loops", "2"].detach()) == pytest.approx(1 / 4)
    loss = target_rate_loss(trace, 0.7)
    (_, _, ones, a1), (_, _, reached, a2) = trace.gates
    assert reached is a1
    expected = ((0.7 - a1.sum() / ones.sum()) ** 2 + (0.7 - a2.sum() / a1.sum()) ** 2) / 2
    got = torch.autograd.grad(loss, a1, retain_graph=True)[0]
    torch.testing.assert_close(got, torch.autograd.grad(expected, a1)[0])


def test_samples_are_drawn_from_the_generator():
    net = pp.create_model("dr_resnet_small", width=4, seed=0).train()
    x = torch.randn(32, 3, 8, 8)

    def draw(seed):
        trace = pp.Trace()
        net(x, trace=trace, generator=torch.Generator().manual_seed(seed))
        return loops_run(trace)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_gates_are_open_with_the_softmax_probability():
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.3, 1.2]]).expand(20_000, 2).clone().requires_grad_()
    drawn = straight_through(logits, g)
    assert set(drawn.tolist()) == {0.0, 1.0}
    share = float(logits[0].softmax(0)[1].detach())
    assert float(drawn.mean().detach()) == pytest.approx(share, abs=0.01)
    drawn.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] > 0).all()  # more open logit, more open
    assert straight_through(torch.tensor([[0.0, 90.0], [90.0, 0.0]]), g).tolist() == [1.0, 0.0]
    assert decide(torch.tensor([[0.0, 0.1], [0.1, 0.0]])).tolist() == [True, False]


def test_a_new_gate_lets_the_wanted_share_pass():
    x, g = torch.randn(20_000, 8, 1, 1), torch.Generator().manual_seed(0)
    for hidden, share in ((16, 0.85), (0, 0.85), (16, 0.3)):
        gate = GateUnit(8, hidden, open_share=share)
        assert float(straight_through(gate(x), g).mean().detach()) == pytest.approx(share, abs=0.01)
        assert gate.last.weight.std() < 0.002
        assert len(list(gate.modules())) == (4 if hidden else 2)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        GateUnit(8, open_share=1.0)
    with pytest.raises(ValueError, match="at least 0"):
        GateUnit(8, hidden=-1)


def test_frozen_modules_learn_nothing_inside_loops_either():
    net = tiny(loops=2).train()
    x = wanting(2, 1, 2, 0)
    net(x, generator=torch.Generator().manual_seed(0), frozen={"unit", "gate1"}).sum().backward()
    learned = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert learned == {"stem", "gate2", "head"}


def test_bf16_training_step():
    net = pp.create_model("dr_resnet_small", width=4, seed=0).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(torch.randn(8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# --- batch-norm of loops -------------------------------------------------------------------------------------


@pytest.fixture
def norm():
    return randomise_norms(nn.BatchNorm2d(4), 1).double().train()  # with random statistics and affine values


MASK = torch.tensor([True, False, True, True, False])
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def maps(seed=0):
    return 3.0 + 2.0 * torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_passed_statistics_are_those_of_the_passing_samples(norm):
    """By hand: mean and variance over the passing samples; running = 0.9·running + 0.1·(mean, unbiased variance)."""
    x = maps().requires_grad_()
    old_mean, old_var = norm.running_mean.clone(), norm.running_var.clone()
    out = normalise(norm, x, MASK, "passed", training=True)
    kept = x.detach()[MASK]
    mean, var = kept.mean((0, 2, 3)), kept.var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(norm.running_mean, 0.9 * old_mean + 0.1 * mean, **CLOSE)
    torch.testing.assert_close(norm.running_var, 0.9 * old_var + 0.1 * var, **CLOSE)
    assert norm.num_batches_tracked == 1
    by_all = x.detach().mean((0, 2, 3))
    assert not torch.allclose(mean, by_all, atol=1e-2)
    # the passing samples get the same values as in a batch of their own, forward and backward
    alone, z = copy.deepcopy(norm), kept.clone().requires_grad_()
    expected = alone(z)
    torch.testing.assert_close(out[MASK], expected, **CLOSE)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype)
    norm.zero_grad()
    alone.zero_grad()
    (out[MASK] * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(gradient(x)[MASK], z.grad, **CLOSE)
    assert (gradient(x)[~MASK] == 0).all()
    torch.testing.assert_close(norm.weight.grad, alone.weight.grad, **CLOSE)
    # the others are normalised by the same statistics
    biased = kept.var((0, 2, 3), unbiased=False)
    by_hand = (x.detach() - mean.view(1, -1, 1, 1)) / (biased + norm.eps).sqrt().view(1, -1, 1, 1)
    by_hand = by_hand * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(out, by_hand, **CLOSE)


def test_updates_normalise_by_all_samples_and_update_by_the_passing_ones(norm):
    x, plain, passed = maps(), copy.deepcopy(norm), copy.deepcopy(norm)
    out = normalise(norm, x, MASK, "updates", training=True)
    torch.testing.assert_close(out, plain(x), **CLOSE)
    passed(x[MASK])
    torch.testing.assert_close(norm.running_mean, passed.running_mean, **CLOSE)
    torch.testing.assert_close(norm.running_var, passed.running_var, **CLOSE)
    assert not torch.allclose(norm.running_mean, plain.running_mean, atol=1e-3)


@pytest.mark.parametrize("statistics", ["passed", "updates", "all"])
def test_if_all_samples_pass_it_is_plain_batch_norm(norm, statistics):
    plain, x = copy.deepcopy(norm), maps()
    out = normalise(norm, x, torch.ones(5, dtype=torch.bool), statistics, training=True)
    torch.testing.assert_close(out, plain(x), **CLOSE)
    torch.testing.assert_close(norm.running_var, plain.running_var, **CLOSE)
    assert norm.num_batches_tracked == plain.num_batches_tracked == 1


@pytest.mark.parametrize("statistics", ["passed", "updates", "all"])
def test_if_no_sample_passes_the_statistics_do_not_change(norm, statistics):
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = maps().requires_grad_()
    out = normalise(norm, x, torch.zeros(5, dtype=torch.bool), statistics, training=True)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    out.square().sum().backward()
    assert gradient(x).isfinite().all()
    normalise(norm, x, MASK, statistics, training=True)
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_a_single_value_has_no_variance():
    norm, x = randomise_norms(nn.BatchNorm1d(4)).double().train(), maps()[:, :, 0, 0]
    before = buffers(norm)[1].clone()
    out = normalise(norm, x, torch.tensor([True, False, False, False, False]), "passed", training=True)
    assert torch.equal(buffers(norm)[1], before)
    torch.testing.assert_close(out, norm.eval()(x), **CLOSE)


def test_evaluation_ignores_the_mask_and_masks_need_plain_batch_norm(norm):
    x = maps()
    assert torch.equal(normalise(norm.eval(), x, MASK, "passed", training=False), norm(x))
    with pytest.raises(ValueError, match="SyncBatchNorm after a gate"):
        normalise(nn.SyncBatchNorm(4).train(), x, MASK, "passed", training=True)  # pyright: ignore[reportArgumentType] (wrong on purpose)
    with pytest.raises(ValueError, match="passed, updates, all"):
        LoopUnit(3, 4, statistics="some")
    with pytest.raises(ValueError, match="relu, relu6"):
        LoopUnit(3, 4, act="gelu")


def test_cumulative_statistics_count_batches(norm):
    norm.momentum = None
    norm.reset_running_stats()
    plain = copy.deepcopy(norm)
    for seed in (1, 2):
        normalise(norm, maps(seed), MASK, "passed", training=True)
        plain(maps(seed)[MASK])
    torch.testing.assert_close(norm.running_mean, plain.running_mean, **CLOSE)
    torch.testing.assert_close(norm.running_var, plain.running_var, **CLOSE)


def test_two_forwards_before_one_backward():
    net = tiny().train()
    x, g = wanting(2, 0, 3, 1), torch.Generator().manual_seed(0)
    both = net(x, paths="loops=2").sum() + net(x, generator=g).sum() + net(x, paths="loops=3").sum()
    both.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("norm", "samples"), [("i-lvbn", "passed"), ("i-lvbn-updates", "passed"), ("lvbn", "all")])
def test_statistics_of_a_network_equal_those_by_hand(norm, samples):
    net = pp.create_model("dr_resnet_small", width=4, norm=norm, seed=1).train()
    block = "group3.block2"
    convs, trace, gated = [], pp.Trace(), net.get_submodule(f"{block}.gate.hidden")
    net.get_submodule(f"{block}.unit1.conv").register_forward_hook(lambda _, __, out: convs.append(out.detach()))
    hidden: list[torch.Tensor] = []
    gated.register_forward_hook(lambda _, __, out: hidden.append(out.detach()))
    x = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net(x, trace=trace, generator=torch.Generator().manual_seed(1))
    opened = [o.detach() > 0 for switch, _, _, o in trace.gates if switch == f"{block}.loops"]
    assert [len(convs), len(opened)] == [3, 3]
    for k, (out, mask) in enumerate(zip(convs, opened, strict=True), 1):
        assert 2 <= mask.sum() < 24
        kept = out[mask] if samples == "passed" else out
        bn = net.get_submodule(f"{block}.unit1.norm.loop{k}")
        torch.testing.assert_close(bn.running_mean, 0.1 * kept.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(bn.running_var, 0.9 + 0.1 * kept.var((0, 2, 3)), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(out[mask].mean((0, 2, 3)), out.mean((0, 2, 3)), rtol=1e-3)
    # the gate's own norm sees the samples that reach it
    mean = torch.zeros(16)
    for h, mask in zip(hidden, [torch.ones(24, dtype=torch.bool), *opened], strict=False):
        mean = 0.9 * mean + 0.1 * (h[mask] if samples == "passed" else h).mean(0)
    torch.testing.assert_close(net.get_submodule(f"{block}.gate.norm").running_mean, mean, rtol=1e-4, atol=1e-6)


def test_a_loop_that_no_sample_reaches_keeps_its_statistics():
    net = tiny().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net(wanting(1, 0, 1, 0), generator=torch.Generator().manual_seed(0))
    moved = {k for k in range(1, 4) if not torch.equal(
        net.state_dict()[f"unit.norm.loop{k}.running_mean"], before[f"unit.norm.loop{k}.running_mean"])}  # fmt: skip
    assert moved == {1}


def test_statistics_can_be_recalibrated_while_gates_decide(split, x64):
    """Samples that have left do not count; a gate that only one sample reaches works too."""
    batches = [(x64[i : i + 3],) for i in range(0, 30, 3)]
    before = {key: value.clone() for key, value in split.state_dict().items()}
    stats = recalibrate(split, ["whole", "loops=1"], batches)
    dynamic, once = stats[split.paths("whole")], stats[split.paths("loops=1")]
    assert all(mean.isfinite().all() and var.isfinite().all() for mean, var in dynamic.values())
    assert any(".norm.loop2" in name for name in dynamic)
    assert any("gate.norm" in name for name in dynamic)
    assert not any(".norm.loop2" in name or "gate.norm" in name for name in once)
    assert all(torch.equal(value, before[key]) for key, value in split.state_dict().items())


# --- what can be run, what to expect -------------------------------------------------------------------------


def wired(draw) -> Wiring:
    """Nodes one → mid → two, and what ``draw(builder, operands)`` adds."""
    b = WiringBuilder()
    one = b.unit("one", b.input)
    two = b.unit("two", b.unit("mid", one))
    return b.wiring(draw(b, {"0": b.input, "1": one, "2": two}))


def gates(*opens, source="input") -> tuple[Gate, ...]:
    return tuple(Gate("gate", source, label) for label in opens)


def third_reads_mid(b, ends):
    late = b.join("late", {"a": "two", "b": b.unit("again", "mid")}, "sum")
    return b.join("s", ends | {"3": late}, "switch", gates=gates("1"))


def one_inside_another(b, ends):
    inner = b.join("inner", ends, "switch", gates=gates("2"))
    return b.join("s", {"0": b.input, "1": inner}, "switch", gates=gates("1"))


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda b, ends: b.join("s", ends, "switch", gates=gates("1", "1")), "two gates open the same operand '1'"),
        (lambda b, ends: b.join("s", ends, "switch", gates=gates("2", source="mid")), "inside this gate's loop"),
        (
            lambda b, ends: b.join("out", {"s": b.join("s", ends, "switch", gates=gates("2")), "x": "mid"}, "sum"),
            "node 'out' reads 'mid'",
        ),
        (third_reads_mid, "reads 'mid', a node inside an earlier loop"),
        (one_inside_another, "'inner' inside its loops has gates too"),
    ],
)
def test_switches_that_cannot_be_run_loop_by_loop_are_refused(draw, told):
    fine = wired(lambda b, ends: b.join("s", ends, "switch", gates=gates("1", "2")))
    check_gates(fine)
    wiring = wired(draw)
    with pytest.raises(ValueError, match=told):
        check_gates(wiring)
    with pytest.raises(ValueError, match=told):
        pp.PathNet(wiring, {path: nn.Identity() for path in wiring.modules})


def around(kind: str) -> pp.PathNet:
    """A gated switch whose loop ends in a join of a unit, of the loop's input and of another node before it. The switch
    also has that node as an operand (``before``), one more loop (``inside``), or nothing else (``alone``)."""
    b = NetBuilder()
    z, side = (b.add(name, b.input, nn.Conv2d(3, 4, 1)) for name in ("stem", "side"))
    mixed = b.join("mixed", {"unit": b.add("unit", z, nn.Conv2d(4, 4, 3, padding=1)), "skip": z, "side": side})
    b.modules["gate"] = Wants(1)
    sources = [z, mixed]
    if kind == "before":
        sources = [z, side, mixed]
    if kind == "inside":
        sources.append(b.add("again", mixed, nn.Conv2d(4, 4, 1)))
    ends = {str(k): source for k, source in enumerate(sources)}
    z = b.join("s", ends, "switch", gates=(Gate("gate", b.input, "1"),))
    z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return b.net(b.add("head.classifier", z, nn.Linear(4, 5)))


@pytest.mark.parametrize("kind", ["alone", "before", "inside"])
@pytest.mark.parametrize("text", ["whole", "mixed=skip", "mixed=side", "mixed=unit", "mixed=unit,side"])
def test_an_operand_may_be_a_node_from_before_the_switch(kind, text):
    net, x = around(kind).eval(), wanting(0, 1, 0, 1)
    with torch.no_grad():
        wanted = net(x, paths=text)
        first, *_, last = net.wiring.joins["s"].labels
        shut, opened = (net(x, paths=net.paths({**net.paths(text), "s": label})) for label in (first, last))
        assert_close(wanted[::2], shut[::2])
        assert_close(wanted[1::2], opened[1::2])
        child = pp.extract(net, text)
        assert torch.equal(child(x), wanted)
        assert_close(pp.fuse(child)(x), wanted)
        steps = pp.deploy.Stepwise.of(child)
        assert_close(torch.from_numpy(steps.run(x.numpy())[0]), wanted)
    assert pp.cost(child, size=6).params == sum(p.numel() for p in child.parameters())
    child.train()(x).sum().backward()


def test_what_to_expect_of_gates_on_target():
    net, free = tiny(), tiny(gated={2, 3})
    assert expected_loops(net, 0.5) == 0.5 + 0.25 + 0.125
    assert expected_loops(net.wiring, 0.5, "all") == 1.5
    assert expected_loops(free, 0.5) == 1 + 0.5 + 0.25
    assert expected_loops(net, 1.0) == 3.0
    assert loop_shares(free.wiring, 0.5)["loops", "3"] == 0.25
    shares = node_shares(net, 0.5)
    assert (shares["stem"], shares["loop2.unit"], shares["loops:1"], shares["loops:2"]) == (1.0, 0.25, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"target = 1\.5"):
        expected_loops(net, 1.5)
    with pytest.raises(ValueError, match="reaching, all"):
        expected_loops(net, 0.5, "some")  # pyright: ignore[reportArgumentType] (wrong on purpose)
    b = WiringBuilder()
    with pytest.raises(ValueError, match="no gates"):
        expected_loops(b.wiring(b.unit("a", b.input)), 0.5)
    with pytest.raises(ValueError, match="the trace contains no gates"):
        loops_run(pp.Trace())
