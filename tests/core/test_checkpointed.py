"""Activation checkpointing: the same training step for less memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polypath as pp
from contracts.small import small_net, small_spec
from polypath.core.builder import NetBuilder
from polypath.core.checkpointed import run_checkpointed
from polypath.core.wiring import INPUT

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def step(net: pp.PathNet, **options: Any) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
    net.zero_grad()
    torch.manual_seed(3)
    out = net(X, **options)
    out.square().mean().backward()
    return (
        out,
        [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        [*map(Tensor.clone, net.buffers())],
    )


@pytest.mark.parametrize("name", ["fractalnet20", "crescendonet_128", "gunn15", "dfn_mr14", "dr_resnet_small"])
def test_a_step_is_the_same_to_the_bit(name):
    """Outputs, gradients, running statistics and what gates draw, with dropout."""
    spec: Any = small_spec(name)
    net = (replace(spec, dropout=0.2) if name == "crescendonet_128" else spec).build(seed=0).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = []
    for enable in (False, True):
        net.load_state_dict(before)
        net.set_grad_checkpointing(enable)
        generator, trace = torch.Generator().manual_seed(5), pp.Trace()
        found.append((*step(net, generator=generator, trace=trace), generator.get_state(), len(trace.gates)))
    (out, grads, buffers, state, gates), (again, *rest) = found
    assert torch.equal(out, again)
    assert [g is None for g in grads] == [g is None for g in rest[0]]
    assert all(torch.equal(a, b) for a, b in zip(grads, rest[0], strict=True) if a is not None)
    assert all(map(torch.equal, buffers, rest[1]))
    assert torch.equal(state, rest[2])
    assert gates == rest[3]


def test_few_activations_are_held_and_each_unit_runs_twice():
    """Of n units in a row, the backward pass holds the activations of about 2·√n, and each runs twice."""
    calls: list[int] = []

    class Counted(nn.Module):
        def __init__(self, i: int) -> None:
            super().__init__()
            self.i, self.scale = i, nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.i)
            return (x * self.scale).exp().sin()

    b = NetBuilder()
    z = b.input
    for i in range(16):
        z = b.add(f"unit{i}", z, Counted(i))
    net = b.net(z)
    held: list[int] = []

    def run(checkpointed: bool) -> int:
        held.clear()
        calls.clear()
        x = torch.randn(1, 3, 8, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
            steps = net.plan(None)
            values = run_checkpointed(net, steps, {INPUT: x}) if checkpointed else {net.wiring.output: net(x)}
        kept = sum(held)
        values[net.wiring.output].sum().backward()
        return kept

    assert run(True) < 0.3 * run(False)
    run(True)
    assert sorted(calls) == sorted([*range(16)] * 2)


def test_without_gradients_nothing_runs_twice():
    net = small_net("fractalnet20").eval()
    with torch.inference_mode():
        expected = net(X)
        net.set_grad_checkpointing()
        assert torch.equal(net(X), expected)
    with pytest.raises(ValueError, match="enable = 'yes'"):
        net.set_grad_checkpointing("yes")  # pyright: ignore[reportArgumentType] (that is the point)
