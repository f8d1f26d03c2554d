"""The steps of Algorithm 1: the update of one segment, forward and backward.

A unit may have two more methods. ``reads()`` returns None or one conv (:class:`Reads`) that combines the 1×1 convs of
the unit's input. ``rest(*maps)`` computes the unit's output from the outputs of these convs. On a CPU, the combined
conv runs as one matrix product. The gradient of its input is added in place to the buffer's gradient, without
allocating N new maps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from polypath.layers.pointwise import add_product, layout, pointwise, weight_gradient

Gradients = Iterator[tuple[Tensor, Tensor | None]]


class Reads(NamedTuple):
    """The stacked weights ``(n, N, 1, 1)`` and biases ``(n,)`` of 1×1 convs of one input, and the convs' widths."""

    weight: Tensor
    bias: Tensor | None
    widths: list[int]


class Keeper(Protocol):
    """An object that saves tensors for the layer's backward pass."""

    def pack(self, tensor: Tensor) -> Any: ...
    def unpack(self, key: Any) -> Tensor: ...
    def keeping(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which this object also saves the tensors that newly built graphs need."""
        ...


@dataclass
class Maps:
    """A layer's buffer, with segments of ``size`` channels; in the backward pass also the input x and the gradient."""

    buffer: Tensor
    size: int
    residual: bool
    keeper: Keeper
    x: Tensor | None = None
    grad: Tensor | None = None

    def segments(self, start: int, stop: int) -> slice:
        return slice(start * self.size, stop * self.size)

    def update(self, index: int, change: Tensor) -> None:
        update(self.buffer[:, self.segments(index, index + 1)], change, self.residual)

    def restore(self, index: int) -> Tensor:
        """Restore a segment's old value, and change the segment's gradient to the gradient of the old value.

        Returns the gradient of the output of the segment's unit.
        """
        assert self.x is not None
        assert self.grad is not None
        own = self.segments(index, index + 1)
        self.buffer[:, own].copy_(self.x[:, own])
        upstream = self.grad[:, own].clone()
        if not self.residual:
            self.grad[:, own].zero_()
        return upstream


def changed(unit: nn.Module, x: Tensor) -> Tensor:
    """Compute ``unit(x)``; if the unit has ``reads()``, all convs that read ``x`` run in one call."""
    reads = _reads(unit)
    if reads is None:
        return unit(x)
    return _answer(unit, reads.bias, torch.split(pointwise(x, reads.weight, None), reads.widths, dim=1))


def update(segment: Tensor, change: Tensor, residual: bool) -> None:
    segment.add_(change) if residual else segment.copy_(change)


def steps_of(
    units: Iterable[nn.Module], parameters: Iterable[Sequence[Tensor]], device: torch.device
) -> list[Step | ReadingStep]:
    """Make the units' steps in order; on a CPU, a unit with ``reads()`` gets a :class:`ReadingStep`."""
    steps: list[Step | ReadingStep] = []
    for i, (unit, own) in enumerate(zip(units, parameters, strict=True)):
        with torch.enable_grad():
            reads = _reads(unit) if device.type == "cpu" else None
        steps.append(Step(unit, own, i) if reads is None else ReadingStep(unit, own, i, reads))
    return steps


class Step:
    """An update of a segment by a unit of any kind."""

    def __init__(self, unit: nn.Module, parameters: Sequence[Tensor], index: int) -> None:
        self.unit, self.parameters, self.index = unit, parameters, index

    def forward(self, maps: Maps) -> None:
        with torch.enable_grad(), maps.keeper.keeping():
            seen = maps.buffer.detach().requires_grad_()
            change = changed(self.unit, seen)
            answer = change.detach()
        self.graph = _Graph([seen], change)
        maps.update(self.index, answer)

    def backward(self, maps: Maps) -> Gradients:
        assert maps.grad is not None
        (to_input,), to_parameters = self.graph.gradients(self.parameters, maps.restore(self.index))
        if to_input is not None:
            maps.grad.add_(to_input)  # Eq. 6
        yield from zip(self.parameters, to_parameters, strict=True)


class ReadingStep:
    """An update of a segment by a unit with ``reads()``: the combined convs run as one matrix product."""

    def __init__(self, unit: nn.Module, parameters: Sequence[Tensor], index: int, reads: Reads) -> None:
        self.unit, self.parameters, self.index, self.reads = unit, parameters, index, reads
        with torch.enable_grad():
            matrix = reads.weight.flatten(1)
        self.source = get_gradient_edge(matrix) if matrix.requires_grad else None
        self.matrix = matrix.detach()

    def forward(self, maps: Maps) -> None:
        self.weight = maps.keeper.pack(self.matrix)
        read = pointwise(maps.buffer, self.matrix[:, :, None, None], None)
        self.dtype = read.dtype
        del self.matrix
        with torch.enable_grad(), maps.keeper.keeping():
            parts = [part.detach().requires_grad_() for part in torch.split(read, self.reads.widths, dim=1)]
            change = _answer(self.unit, self.reads.bias, parts)
            answer = change.detach()
        self.graph = _Graph(parts, change)
        maps.update(self.index, answer)

    def backward(self, maps: Maps) -> Gradients:
        assert maps.grad is not None
        to_parts, to_parameters = self.graph.gradients(self.parameters, maps.restore(self.index))
        yield from zip(self.parameters, to_parameters, strict=True)
        given = self._room(maps.buffer)
        for place, values in zip(torch.split(given, self.reads.widths, dim=1), to_parts, strict=True):
            place.zero_() if values is None else place.copy_(values)
        add_product(maps.grad, maps.keeper.unpack(self.weight).t(), given)  # Eq. 6
        if self.source is not None:
            to_weight = weight_gradient(given, maps.buffer)
            found = torch.autograd.grad(self.source, self.parameters, to_weight, retain_graph=True, allow_unused=True)
            yield from zip(self.parameters, found, strict=True)

    def _room(self, buffer: Tensor) -> Tensor:
        """Allocate memory for the gradients of the maps that were read."""
        shape = (len(buffer), sum(self.reads.widths), *buffer.shape[2:])
        return torch.empty(shape, dtype=self.dtype, device=buffer.device, memory_format=layout(buffer))


class _Graph:
    """A unit's autograd graph from its leaves, whose values are freed, to the unit's output."""

    def __init__(self, leaves: Sequence[Tensor], answer: Tensor) -> None:
        self.starts = [get_gradient_edge(leaf) for leaf in leaves]
        self.end = get_gradient_edge(answer) if answer.requires_grad else None
        self.dtype = answer.dtype
        for leaf in leaves:
            leaf.data = leaf.new_empty(0)

    def gradients(
        self, parameters: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """Compute the gradients of the leaves and of ``parameters``."""
        inputs = cast(
            Sequence[Tensor], [*self.starts, *parameters]
        )  # torch has no type for a mixture of edges and tensors
        if self.end is None:
            found: Sequence[Tensor | None] = [None] * len(inputs)
        else:
            found = torch.autograd.grad(self.end, inputs, upstream.to(self.dtype), retain_graph=True, allow_unused=True)
        return found[: len(self.starts)], found[len(self.starts) :]


def _reads(unit: nn.Module) -> Reads | None:
    reads = getattr(unit, "reads", None)
    return None if reads is None else reads()


def _answer(unit: Any, bias: Tensor | None, parts: Sequence[Tensor]) -> Tensor:
    if bias is not None:
        biases = torch.split(bias, [part.shape[1] for part in parts])
        parts = [part + b[:, None, None].to(part.dtype) for part, b in zip(parts, biases, strict=True)]
    return unit.rest(*parts)
