"""Run a plan: call units, merge operands, run gated switches loop by loop.

A gated switch has operands x_0, x_1, …, x_l, and may have a gate g_k before each loop (DRNN §3). It runs in one of
these modes:

``sample``   x_k = (1 − a_k)·x_{k−1} + a_k·block_k(x_{k−1}),   a_k = g_1·…·g_k, sampled, straight-through gradient
``decide``   a sample whose gate is closed stops with x_{k−1}; later loops run on the remaining samples only
``keep``     every loop runs on every sample, but a sample whose gate is closed keeps x_{k−1}
``all``      every gate is evaluated and every loop runs on every sample; this mode is for counts, shapes and examples

Training uses ``sample``, which runs every loop on every sample. Evaluation uses ``decide``, which saves the time for
samples that have stopped. Export uses ``keep``, because a static graph cannot have a varying number of samples; the
results are the same as with ``decide``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polypath.core.gating import decide, straight_through
from polypath.core.plan import Step
from polypath.core.precision import at_least_float32
from polypath.core.recording import exporting, symbolic
from polypath.core.wiring import Gate, Unit

GateMode = Literal["sample", "decide", "keep", "all"]
NodeHook = Callable[[str, Tensor], Tensor | None]
"""A function that is called with a node's name and output. A result other than None replaces the output."""


@dataclass
class Trace:
    """A record of intermediate values of one forward pass. It is filled by ``net(x, trace=trace)``.

    ``values`` receives the outputs of the nodes in ``nodes``. In evaluation, a value inside the loops of a gated switch
    has only the samples that ran the loop. ``gates`` receives the decisions of every gate, in order of
    execution, as ``(switch, label, reached, open)``. ``reached`` and ``open`` are ``(N,)`` tensors of 0 and 1: which
    samples reached the gate, and which samples passed it. In training they are differentiable.
    """

    nodes: frozenset[str] = frozenset()
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    gates: list[tuple[str, str, Tensor, Tensor]] = field(default_factory=list[tuple[str, str, Tensor, Tensor]])


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of one run of a plan.

    Attributes:
        root: the module that contains the units and gates at their dotted paths.
        gates: the mode of gated switches, see the module's docstring.
        trace: collects intermediate values.
        generator: random source of sampled gates.
        frozen: paths of modules that run without gradient.
        finished: called with a node's name after the node has run; in mode ``all`` also after a gate, with
            ``switch:label``.
        hooks: the hooks of each node, see :meth:`PathNet.register_node_hook`.
    """

    root: nn.Module
    gates: GateMode
    trace: Trace | None = None
    generator: torch.Generator | None = None
    frozen: Collection[str] = ()
    finished: Callable[[str], None] | None = None
    hooks: Mapping[str, Sequence[NodeHook]] = field(default_factory=dict[str, Sequence["NodeHook"]])


def run_steps(
    root: nn.Module,
    steps: Sequence[Step],
    values: dict[str, Tensor],
    *,
    gates: GateMode | None = None,
    trace: Trace | None = None,
    generator: torch.Generator | None = None,
    frozen: Collection[str] = (),
    finished: Callable[[str], None] | None = None,
) -> dict[str, Tensor]:
    """Run the steps of a plan. Add their outputs to ``values``, remove freed tensors, and return ``values``.

    Args:
        root: a network; its mode (training or evaluation) applies to the steps.
        values: tensors by node name, including all tensors that the steps read but do not compute.
        gates: mode of gated switches, by default ``sample`` in training, ``decide`` in evaluation, ``keep`` in export.
        trace, generator, frozen, finished: see :class:`Run`.
    """
    recorded = any(map(symbolic, values.values()))
    if recorded and root.training and any(step.loops for step in steps):
        raise ValueError("torch.fx cannot record sampled gates: call eval() first, or extract a path without gates")
    mode: GateMode = gates or ("sample" if root.training else "keep" if recorded or exporting() else "decide")
    hooks: Mapping[str, Sequence[NodeHook]] = getattr(root, "node_hooks", {})
    return _run(Run(root, mode, trace, generator, frozen, finished, hooks), steps, values)


def call_module(
    root: nn.Module, path: str, x: Tensor, variant: str | None = None, *, mask: Tensor | None = None
) -> Tensor:
    """Call the module at a dotted path and return its output.

    In training, ``mask`` ``(N,)`` tells which samples passed the gates so far.
    """
    unit = attrgetter(path)(root)  # get_submodule takes three times as long, which matters with a hundred units
    options: dict[str, Any] = {} if variant is None else {"variant": variant}
    if mask is not None and getattr(unit, "takes_mask", False):
        options["mask"] = mask
    return unit(x, **options)


def join(kind: str, inputs: Sequence[Tensor], scales: Sequence[float] | None = None) -> Tensor:
    """Merge the alive operands, in order: by element-wise mean, sum or max, or by concatenation of their channels.

    Each operand of a sum is multiplied by its entry in ``scales`` (for stochastic depth in evaluation).
    """
    if scales is not None and any(scale != 1.0 for scale in scales):
        inputs = [x if scale == 1.0 else x * scale for x, scale in zip(inputs, scales, strict=True)]
    if kind == "concat":
        return torch.cat(tuple(inputs), dim=1)
    if len(inputs) == 1:
        return inputs[0]
    if kind == "max":
        out = torch.maximum(inputs[0], inputs[1])
        for x in inputs[2:]:
            out = torch.maximum(out, x)
        return out
    out = inputs[0] + inputs[1]
    for x in inputs[2:]:
        out += x  # in place, since the sum is a new tensor and addition saves nothing for the backward pass
    return out.div_(len(inputs)) if kind == "mean" else out


def loops_run(trace: Trace) -> Tensor:
    """Count for each sample ``(N,)`` the loops that it ran, over all switches. Loops without a gate are not counted.

    Raises:
        ValueError: a trace without gates.
    """
    if not trace.gates:
        raise ValueError("the trace contains no gates; run a network with gates under a choice that lets them decide")
    return torch.stack([opened.detach() for _, _, _, opened in trace.gates]).sum(0)


def _run(run: Run, steps: Sequence[Step], values: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
    for step in steps:
        node, inputs = step.node, [values[source] for source in step.sources]
        if isinstance(node, Unit):
            out = _call(run, node.module, inputs[0], node.variant, mask)
        elif step.loops:
            out = _SWITCHES[run.gates](run, step, values)
        else:
            out = join(node.kind, inputs, step.scales if not run.root.training else None)
        for hook in run.hooks.get(node.name, ()):
            changed = hook(node.name, out)
            out = out if changed is None else changed
        values[node.name] = out
        if run.trace is not None and node.name in run.trace.nodes:
            run.trace.values[node.name] = out
        if run.finished is not None:
            run.finished(node.name)
        for name in step.free:
            del values[name]
    return values


def _call(run: Run, path: str, x: Tensor, variant: str | None = None, mask: Tensor | None = None) -> Tensor:
    if path in run.frozen:
        with torch.no_grad():
            return call_module(run.root, path, x, variant, mask=mask)
    return call_module(run.root, path, x, variant, mask=mask)


def _sample(run: Run, step: Step, values: Mapping[str, Tensor]) -> Tensor:
    x, through = values[step.loops[0].begin], None  # through: a_{k-1}, None before the first gate
    for loop in step.loops:
        inner = {name: values[name] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            mask = None if through is None else through.detach() > 0
            decided = straight_through(_call(run, loop.gate.module, inner[loop.gate.source], mask=mask), run.generator)
            reached = torch.ones_like(decided, requires_grad=False) if through is None else through
            through = reached * decided
            _note(run, step, loop.label, reached, through)
        mask = None if through is None else through.detach() > 0
        looped = _run(run, loop.steps, inner, mask)[loop.end]
        if through is None:
            x = looped
        else:
            a = _beside(through.to(looped.dtype), looped)
            x = (1 - a) * x + a * looped
    return x


def _decide(run: Run, step: Step, values: Mapping[str, Tensor]) -> Tensor:
    x = values[step.loops[0].begin]
    rows = torch.arange(len(x), device=x.device)  # indices of the samples that still run; x has only these samples
    total, out = len(x), None  # out: results of the samples that have stopped, None at first
    for loop in step.loops:
        inner = {name: values[name] if out is None else values[name][rows] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            opened, passing = _ask(run, loop.gate, inner, rows)
            if run.trace is not None:
                _note(run, step, loop.label, _ones_at(rows, total, x), _ones_at(rows[opened], total, x))
            if passing < len(rows):
                # a stable sort puts passing samples first; indexing with two masks would wait for the device twice
                order = opened.logical_not().sort(stable=True).indices
                out = torch.empty_like(x) if out is None else out
                stay, leave = order[:passing], order[passing:]
                out.index_copy_(0, rows[leave], x.index_select(0, leave).to(out.dtype))
                rows, x = rows[stay], x.index_select(0, stay)
                inner = {
                    name: x if name == loop.begin else value.index_select(0, stay) for name, value in inner.items()
                }
        if len(rows):
            x = _run(run, loop.steps, inner)[loop.end]
    return x if out is None else out.index_copy_(0, rows, x.to(out.dtype))


def _keep(run: Run, step: Step, values: Mapping[str, Tensor]) -> Tensor:
    x, through = values[step.loops[0].begin], None  # through: the samples that still run, None before the first gate
    for loop in step.loops:
        inner = {name: values[name] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            opened = decide(_call(run, loop.gate.module, inner[loop.gate.source]))
            reached = torch.ones_like(opened) if through is None else through
            through = reached & opened
            _note(run, step, loop.label, *map(at_least_float32, (reached, through)))
        looped = _run(run, loop.steps, inner)[loop.end]
        x = looped if through is None else torch.where(_beside(through, looped), looped, x)
    return x


def _all(run: Run, step: Step, values: Mapping[str, Tensor]) -> Tensor:
    x = values[step.loops[0].begin]
    for loop in step.loops:
        inner = {name: values[name] for name in loop.outside} | {loop.begin: x}
        if loop.gate is not None:
            _call(run, loop.gate.module, inner[loop.gate.source])
            if run.finished is not None:
                run.finished(f"{step.node.name}:{loop.label}")
        x = _run(run, loop.steps, inner)[loop.end]
    return x


_SWITCHES: dict[GateMode, Callable[[Run, Step, Mapping[str, Tensor]], Tensor]] = {
    "sample": _sample,
    "decide": _decide,
    "keep": _keep,
    "all": _all,
}


def _ask(run: Run, gate: Gate, inner: Mapping[str, Tensor], rows: Tensor) -> tuple[Tensor, int]:
    """Evaluate a gate on the samples ``rows``; return which of them pass, and how many."""
    if not len(rows):
        return rows.new_zeros(0, dtype=torch.bool), 0
    opened = decide(_call(run, gate.module, inner[gate.source]))
    return opened, int(opened.count_nonzero())


def _beside(samples: Tensor, values: Tensor) -> Tensor:
    """Reshape ``samples`` ``(N,)``, one number per sample, to broadcast over ``values``."""
    return samples.view(-1, *[1] * (3 if symbolic(values) else values.ndim - 1))


def _note(run: Run, step: Step, label: str, reached: Tensor, opened: Tensor) -> None:
    if run.trace is not None:
        run.trace.gates.append((step.node.name, label, reached, opened))


def _ones_at(rows: Tensor, total: int, like: Tensor) -> Tensor:
    return at_least_float32(like.new_zeros(total)).index_fill_(0, rows, 1.0)
