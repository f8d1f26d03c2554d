"""Activation checkpointing (Chen et al. 2016): only the inputs of a plan's segments are saved for the backward pass.

The backward pass runs each segment again. This second run costs time but changes nothing else: buffers (running
statistics) keep their values from the first run, gates repeat their decisions, and traces get no second entries.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType] (torch does not type it)

from polypath.core.execute import Trace, run_steps
from polypath.core.plan import Step


def run_checkpointed(
    root: nn.Module, steps: Sequence[Step], values: dict[str, Tensor], **options: Any
) -> dict[str, Tensor]:
    """Run a plan of n steps in about √n segments, with the same result as :func:`polypath.core.execute.run_steps`."""
    size = math.ceil(math.sqrt(len(steps)))
    for begin in range(0, len(steps), max(1, size)):
        segment = _Segment(root, steps[begin : begin + size], options)
        values = checkpoint(segment, values, use_reentrant=False, context_fn=segment.contexts)
    return values


class _Segment:
    def __init__(self, root: nn.Module, steps: Sequence[Step], options: dict[str, Any]) -> None:
        self.root, self.steps = root, steps
        self.options: dict[str, Any] = options
        self.generator: torch.Generator | None = options.get("generator")
        self.drawn_from = None if self.generator is None else self.generator.get_state()

    def __call__(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return run_steps(self.root, self.steps, {**values}, **self.options)

    def contexts(self) -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
        return contextlib.nullcontext(), self.again()

    @contextlib.contextmanager
    def again(self) -> Generator[None]:
        buffers = [(buffer, buffer.clone()) for buffer in self.root.buffers()]
        first: dict[str, Any] = self.options
        state = None if self.generator is None else self.generator.get_state()
        trace: Trace | None = first.get("trace")
        if trace is not None:
            self.options = first | {"trace": Trace(nodes=trace.nodes)}
        if self.generator is not None and self.drawn_from is not None:
            self.generator.set_state(self.drawn_from)
        try:
            yield
        finally:
            self.options = first
            if self.generator is not None and state is not None:
                self.generator.set_state(state)
            for buffer, before in buffers:
                buffer.data.copy_(before)  # without .data, autograd reports a saved tensor as modified
