"""What Algorithm 1 is made of: the update of one segment, forward and back, or of a few whose units read together.

A unit may say what it reads: ``reads()`` gives 1×1 convs of its input as one (:class:`Reads`), or None, and
``rest(*maps)`` makes the unit's answer of what each of them gives. On a CPU these convs are products of matrices of
which the gradient is added to the buffer's where it lies, instead of being made as N new maps first; and since a
product of few maps is far below the processor's rate, a few units' are one.
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

WIDE = 72  # maps that units which read together have at most

Gradients = Iterator[tuple[Tensor, Tensor | None]]


class Reads(NamedTuple):
    """Weights ``(n, N, 1, 1)`` and bias ``(n,)`` of 1×1 convs of one input, and how many of the n maps each gives."""

    weight: Tensor
    bias: Tensor | None
    widths: list[int]


class Keeper(Protocol):
    """Keeps tensors until the layer goes back."""

    def pack(self, tensor: Tensor) -> Any: ...
    def unpack(self, key: Any) -> Tensor: ...
    def keeping(self) -> contextlib.AbstractContextManager[Any]:
        """What graphs made inside save is kept."""
        ...


@dataclass
class Maps:
    """A layer's buffer, its segments of ``size`` channels; going back also its input x and the buffer's gradient."""

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
        """Give a segment its old value, and its gradient that of the old value; the gradient of its unit's answer."""
        assert self.x is not None
        assert self.grad is not None
        own = self.segments(index, index + 1)
        self.buffer[:, own].copy_(self.x[:, own])
        upstream = self.grad[:, own].clone()
        if not self.residual:
            self.grad[:, own].zero_()
        return upstream


def changed(unit: nn.Module, x: Tensor) -> Tensor:
    """``unit(x)``, with all that reads ``x`` in one call where the unit can say what does."""
    reads = _reads(unit)
    if reads is None:
        return unit(x)
    return _answer(unit, reads.bias, torch.split(pointwise(x, reads.weight, None), reads.widths, dim=1))


def update(segment: Tensor, change: Tensor, residual: bool) -> None:
    segment.add_(change) if residual else segment.copy_(change)


def blocks_of(
    units: Iterable[nn.Module], parameters: Iterable[Sequence[Tensor]], device: torch.device
) -> list[Alone | Together]:
    """The units in order: on a CPU those that can together, up to :data:`WIDE` maps; the others alone."""
    # sums of rounded products would be less exact than products
    wide = 0 if torch.is_autocast_enabled("cpu") else WIDE
    blocks: list[Alone | Together] = []
    for i, (unit, own) in enumerate(zip(units, parameters, strict=True)):
        with torch.enable_grad():
            reads = _reads(unit) if device.type == "cpu" else None
        last = blocks[-1] if blocks else None
        if reads is None:
            blocks.append(Alone(unit, own, i))
        elif isinstance(last, Together) and last.height + len(reads.weight) <= wide:
            last.members.append(_Member(unit, own, reads))
        else:
            blocks.append(Together(i, [_Member(unit, own, reads)]))
    return blocks


class Alone:
    """The update by one unit, of which nothing need be known."""

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


class Together:
    """The updates by units that follow each other: all read the buffer before any of them has changed it.

    What one of them reads of the segments that those before it change is left out of the common product, and added
    when these have their new values. Going back, its gradient is added before those go back.
    """

    def __init__(self, first: int, members: list[_Member]) -> None:
        self.first, self.members = first, members

    @property
    def height(self) -> int:
        return sum(member.height for member in self.members)

    def forward(self, maps: Maps) -> None:
        weights = [member.matrix for member in self.members]
        read = pointwise(maps.buffer, self._common(weights, maps)[:, :, None, None], None)
        self.dtype = read.dtype
        for j, (member, own) in enumerate(zip(self.members, self._split(read), strict=True)):
            if j:
                newer = self._newer(j, maps)
                add_product(own, weights[j][:, newer], maps.buffer[:, newer])
            maps.update(self.first + j, member.forward(own, maps.keeper))

    def backward(self, maps: Maps) -> Gradients:
        assert maps.grad is not None
        weights = [maps.keeper.unpack(member.weight) for member in self.members]
        given = self._room(maps.buffer)
        corners: list[Tensor | None] = []
        for j, (member, own) in reversed(list(enumerate(zip(self.members, self._split(given), strict=True)))):
            to_maps, to_parameters = member.graph.gradients(member.parameters, maps.restore(self.first + j))
            yield from zip(member.parameters, to_parameters, strict=True)
            for place, values in zip(torch.split(own, member.widths, dim=1), to_maps, strict=True):
                place.zero_() if values is None else place.copy_(values)
            newer = self._newer(j, maps)
            corners.append(weight_gradient(own, maps.buffer[:, newer]) if j else None)
            if j:
                add_product(maps.grad[:, newer], weights[j][:, newer].t(), own)
        add_product(maps.grad, self._common(weights, maps).t(), given)  # Eq. 6
        to_weights = torch.split(weight_gradient(given, maps.buffer), [member.height for member in self.members])
        for j, (member, to_weight, corner) in enumerate(zip(self.members, to_weights, reversed(corners), strict=True)):
            if corner is not None:
                to_weight[:, self._newer(j, maps)] = corner
            yield from zip(member.parameters, member.through_weight(to_weight), strict=True)

    def _newer(self, j: int, maps: Maps) -> slice:
        """The channels that are changed before member ``j`` runs."""
        return maps.segments(self.first, self.first + j)

    def _common(self, weights: Sequence[Tensor], maps: Maps) -> Tensor:
        """The members' weights, one above the other, but for those of newer channels."""
        matrix = torch.cat(list(weights))
        for j, rows in enumerate(torch.split(matrix, [len(w) for w in weights])):
            rows[:, self._newer(j, maps)] = 0.0
        return matrix

    def _split(self, maps: Tensor) -> Sequence[Tensor]:
        return torch.split(maps, [member.height for member in self.members], dim=1)

    def _room(self, buffer: Tensor) -> Tensor:
        """For the gradients of what was read."""
        shape = (len(buffer), self.height, *buffer.shape[2:])
        return torch.empty(shape, dtype=self.dtype, device=buffer.device, memory_format=layout(buffer))


class _Member:
    """A unit of :class:`Together`."""

    graph: _Graph
    weight: Any

    def __init__(self, unit: nn.Module, parameters: Sequence[Tensor], reads: Reads) -> None:
        self.unit, self.parameters, self.bias, self.widths = unit, parameters, reads.bias, reads.widths
        with torch.enable_grad():
            matrix = reads.weight.flatten(1)
        self.height = len(matrix)
        self.matrix = matrix.detach()
        self.source = get_gradient_edge(matrix) if matrix.requires_grad else None

    def forward(self, read: Tensor, keeper: Keeper) -> Tensor:
        self.weight = keeper.pack(self.matrix)
        del self.matrix
        with torch.enable_grad(), keeper.keeping():
            # by .data: what later members read is still written beside it
            parts = [part.data.requires_grad_() for part in torch.split(read, self.widths, dim=1)]
            change = _answer(self.unit, self.bias, parts)
            answer = change.detach()
        self.graph = _Graph(parts, change)
        return answer

    def through_weight(self, gradient: Tensor) -> Sequence[Tensor | None]:
        if self.source is None:
            return [None] * len(self.parameters)
        return torch.autograd.grad(self.source, self.parameters, gradient, retain_graph=True, allow_unused=True)


class _Graph:
    """A unit's graph from leaves, which let go of their values, to its answer."""

    def __init__(self, leaves: Sequence[Tensor], answer: Tensor) -> None:
        self.starts = [get_gradient_edge(leaf) for leaf in leaves]
        self.end = get_gradient_edge(answer) if answer.requires_grad else None
        self.dtype = answer.dtype
        for leaf in leaves:
            leaf.data = leaf.new_empty(0)

    def gradients(
        self, parameters: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """Of the leaves and of ``parameters``."""
        inputs = cast(Sequence[Tensor], [*self.starts, *parameters])  # torch types no mixture of edges and tensors
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
