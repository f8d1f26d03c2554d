"""Gated switches: the gates decide sample by sample how many loops a block runs (DRNN §3).

With operands x_0, x_1, …, x_l and a gate g_k before each loop:

training      x_k = (1 − a_k)·x_{k−1} + a_k·block_k(x_{k−1}),   a_k = g_1·…·g_k, sampled, gradient straight through
evaluation    a sample whose gate shuts leaves with x_{k−1}; the loops after it run on the samples that are left

So in training all samples run, and in evaluation those that have left cost nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polypath.layers.gates import decide, straight_through
from polypath.plan import Step

if TYPE_CHECKING:
    from polypath.network import PathNet, Trace


def run_switch(
    net: PathNet,
    step: Step,
    values: Mapping[str, Tensor],
    trace: Trace | None,
    generator: torch.Generator | None,
    frozen: Collection[str] = (),
) -> Tensor:
    """The value of a gated switch ``(N, …)``; ``values`` are those of ``step.sources``.

    Gates are modules that give logits ``(N, 2)``. A node inside a loop is traced with the samples that ran it.
    """
    run = _train if net.training else _evaluate
    return run(net, step, values, trace, generator, frozen)


def _train(net, step, values, trace, generator, frozen) -> Tensor:
    x, through = values[step.loops[0].begin], None  # a_{k-1}, None while no gate has been met
    for loop in step.loops:
        inner = {name: values[name] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            reached = x.new_ones(len(x), dtype=torch.float32) if through is None else through
            mask = None if through is None else through.detach() > 0
            logits = net._call(loop.gate.module, inner[loop.gate.source], frozen=frozen, mask=mask)
            through = reached * straight_through(logits, generator)
            if trace is not None:
                trace.gates.append((step.node.name, loop.label, reached, through))
        mask = None if through is None else through.detach() > 0
        looped = net._run(loop.steps, inner, trace, generator, frozen, mask)[loop.end]
        if through is None:
            x = looped
        else:
            a = through.to(looped.dtype).view(-1, *[1] * (looped.ndim - 1))
            x = (1 - a) * x + a * looped
    return x


def _evaluate(net, step, values, trace, generator, frozen) -> Tensor:
    x = values[step.loops[0].begin]
    rows = torch.arange(len(x), device=x.device)  # the samples that still run, x theirs
    total, out = len(x), None  # out: what samples left with, once one has
    for loop in step.loops:
        inner = {name: values[name] if out is None else values[name][rows] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            opened, passing = _ask(net, loop.gate, inner, rows, frozen)
            if trace is not None:
                reached = _ones_at(rows, total)
                trace.gates.append((step.node.name, loop.label, reached, _ones_at(rows[opened], total)))
            if passing < len(rows):
                # those that go on first, in their order: a sort, not two masks, each of which would wait for a device
                order = opened.logical_not().sort(stable=True).indices
                out = torch.empty_like(x) if out is None else out
                stay, leave = order[:passing], order[passing:]
                out.index_copy_(0, rows[leave], x.index_select(0, leave).to(out.dtype))
                rows, x = rows[stay], x.index_select(0, stay)
                inner = {
                    name: x if name == loop.begin else value.index_select(0, stay) for name, value in inner.items()
                }
        if len(rows):
            x = net._run(loop.steps, inner, trace, generator, frozen)[loop.end]
    return x if out is None else out.index_copy_(0, rows, x.to(out.dtype))


def _ask(net, gate, inner, rows, frozen) -> tuple[Tensor, int]:
    """Which of the samples ``rows`` a gate lets pass, and how many."""
    if not len(rows):
        return rows.new_zeros(0, dtype=torch.bool), 0
    opened = decide(net._call(gate.module, inner[gate.source], frozen=frozen))
    return opened, int(opened.count_nonzero())


def _ones_at(rows: Tensor, total: int) -> Tensor:
    return torch.zeros(total, device=rows.device).index_fill_(0, rows, 1.0)


def loops_run(trace: Trace) -> Tensor:
    """How many gated loops each sample ran ``(N,)``, over all switches; a loop without a gate is not counted.

    Raises:
        ValueError: a trace without gates.
    """
    if not trace.gates:
        raise ValueError("no gate has run; build the network with gates and run it dynamically")
    return torch.stack([opened.detach() for _, _, _, opened in trace.gates]).sum(0)
