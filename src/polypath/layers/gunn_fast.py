"""One buffer, updated in place: GUNN's Algorithm 1 (Qiao et al. 2018, §3.4) and its inference.

The reference, Eq. 4 as it stands, is :meth:`polypath.layers.gunn.GunnLayer.reference`. It writes all N channels anew
for each of the P segments and keeps every copy for going back. Here one buffer holds the newest values. Going back,
each segment gets its old value, which is the layer's input, before its unit's gradient is taken; so what the unit saw
is there again, to the bit, and no unit runs twice.

A unit may have a method ``read_by(x, read)``: the same answer as ``unit(x)``, with ``read(weight, bias)`` standing for
1×1 convs of ``x``. On a CPU these are then products of matrices, and their gradient is added to the buffer's gradient
where it lies, instead of being made as N new maps first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from polypath.layers.pointwise import pointwise

Read = Callable[[Tensor, Tensor | None], Tensor]


def in_place(x: Tensor, units: Sequence[nn.Module], residual: bool, *, gradual: bool = True) -> Tensor:
    """The layer without gradients: one buffer beside ``x``, nothing concatenated."""
    buffer = _dense_copy(x)
    for segment, unit in zip(buffer.chunk(len(units), dim=1), units, strict=True):
        _update(segment, changed(unit, buffer if gradual else x), residual)
    return buffer


def algorithm1(x: Tensor, units: Sequence[nn.Module], parameters: Sequence[Sequence[Tensor]], residual: bool) -> Tensor:
    """The gradual layer with gradients for ``x`` and for each unit's ``parameters``, by Algorithm 1.

    It keeps what the units keep, ``x`` and the result: what the simultaneous layer and its reader keep. Going back
    twice over a retained graph works.

    Raises:
        RuntimeError: in the backward pass, a gradient of the gradient (``create_graph=True``).
    """
    unique = list({id(p): p for own in parameters for p in own}.values())
    out = _Algorithm1.apply(x, units, parameters, residual, *unique)
    assert isinstance(out, Tensor)
    return out


def changed(unit: nn.Module, x: Tensor, read: Read | None = None) -> Tensor:
    """``unit(x)``, by ``read`` (default: 1×1 convs of ``x`` as they are) where the unit can say what it reads."""
    read_by = getattr(unit, "read_by", None)
    return unit(x) if read_by is None else read_by(x, read or partial(pointwise, x))


class _Algorithm1(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        units: Sequence[nn.Module],
        parameters: Sequence[Sequence[Tensor]],
        residual: bool,
        *unique: Tensor,
    ) -> Tensor:
        buffer = _dense_copy(x)
        kept = _Kept(buffer)
        graphs: list[tuple[GradientEdge, GradientEdge | None, torch.dtype]] = []
        for segment, unit in zip(buffer.chunk(len(units), dim=1), units, strict=True):
            with torch.enable_grad(), saved_tensors_hooks(kept.pack, kept.unpack):
                seen = buffer.detach().requires_grad_()
                change = changed(unit, seen, partial(_read, kept, seen) if buffer.device.type == "cpu" else None)
            end = get_gradient_edge(change) if change.requires_grad else None
            graphs.append((get_gradient_edge(seen), end, change.dtype))
            seen.data = seen.new_empty(0)  # from here on a place in the unit's graph; it must not hold the buffer
            _update(segment, change.detach(), residual)
        ctx.save_for_backward(x, buffer, *kept.hand_over())
        ctx.kept, ctx.graphs, ctx.parameters, ctx.unique, ctx.residual = kept, graphs, parameters, unique, residual
        ctx.stride = buffer.stride()
        return buffer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "GUNN's Algorithm 1 gives no gradient of a gradient (create_graph=True): "
                "set backward='reference' on the GunnLayers"
            )
        x, y, *tensors = ctx.saved_tensors
        buffer, grad = _copy(y, ctx.stride), _copy(grads[0], ctx.stride)
        sums: dict[int, Tensor | None] = dict.fromkeys(map(id, ctx.unique))
        segments = zip(*(t.chunk(len(ctx.graphs), dim=1) for t in (buffer, x, grad)), strict=True)
        with ctx.kept.lent(buffer, grad, tensors):
            for (values, old, own), (start, end, dtype), parameters in reversed(
                list(zip(segments, ctx.graphs, ctx.parameters, strict=True))
            ):
                values.copy_(old)
                upstream = own.to(dtype, copy=True)
                if not ctx.residual:
                    own.zero_()
                if end is None:
                    continue
                to_input, *to_parameters = torch.autograd.grad(
                    end, [start, *parameters], upstream, retain_graph=True, allow_unused=True
                )
                if to_input is not None:
                    grad.add_(to_input)  # Eq. 6
                for p, g in zip(parameters, to_parameters, strict=True):
                    earlier = sums[id(p)]
                    sums[id(p)] = g if earlier is None or g is None else earlier + g
        return (grad if ctx.needs_input_grad[0] else None, None, None, None, *sums.values())


class _Kept:
    """What the units' graphs keep for going back.

    The tensors are handed over to the layer's own node, which frees them in its time; the graphs remember numbers.
    A tensor that lies in the buffer is not kept at all: it is read from the restored buffer.
    """

    def __init__(self, buffer: Tensor) -> None:
        self.storage: torch.UntypedStorage | None = buffer.untyped_storage()
        self.tensors: list[Tensor] = []
        self.versions: list[int] = []
        self.restored: tuple[Tensor, Tensor] | None = None

    def pack(self, tensor: Tensor) -> Any:
        if tensor.untyped_storage() is self.storage:
            return tensor.size(), tensor.stride(), tensor.storage_offset()
        self.tensors.append(tensor.detach())
        self.versions.append(tensor._version)
        return len(self.tensors) - 1

    def unpack(self, key: Any) -> Tensor:
        return self.tensors[key] if isinstance(key, int) else self.buffer_and_grad[0].as_strided(*key)

    @property
    def buffer_and_grad(self) -> tuple[Tensor, Tensor]:
        assert self.restored is not None
        return self.restored

    def hand_over(self) -> list[Tensor]:
        tensors, self.tensors, self.storage = self.tensors, [], None
        if any(t._version != version for t, version in zip(tensors, self.versions, strict=True)):
            raise RuntimeError("an update unit wrote in place to a tensor that its gradient needs")
        return tensors

    @contextlib.contextmanager
    def lent(self, buffer: Tensor, grad: Tensor, tensors: list[Tensor]) -> Iterator[None]:
        self.restored, self.tensors = (buffer, grad), tensors
        try:
            yield
        finally:
            self.restored, self.tensors = None, []


def _read(kept: _Kept, seen: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    maps = _Read.apply(seen, weight, kept)
    assert isinstance(maps, Tensor)
    return maps if bias is None else maps + bias[:, None, None].to(maps.dtype)


class _Read(torch.autograd.Function):
    """1×1 convs of the newest values; their gradient goes straight into that of the buffer."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, kept: _Kept) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.kept = kept
        return pointwise(seen, weight, None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (given,) = ctx.saved_tensors, grads
        buffer, grad = ctx.kept.buffer_and_grad
        flat, to_weight = weight.detach().flatten(1), None
        with torch.autocast(buffer.device.type, enabled=False):
            if grad.is_contiguous():  # a product for each image
                rows = given.flatten(2)
                transposed = flat.t().to(grad.dtype).expand(len(rows), -1, -1)
                grad.view(*grad.shape[:2], -1).baddbmm_(transposed, rows.to(grad.dtype))
                if ctx.needs_input_grad[1]:
                    to_weight = torch.bmm(rows, buffer.flatten(2).to(rows.dtype).transpose(1, 2)).sum(0)
            else:  # channels last: one product for all pixels
                rows = given.permute(0, 2, 3, 1).flatten(0, 2)
                grad.permute(0, 2, 3, 1).view(-1, grad.shape[1]).addmm_(rows.to(grad.dtype), flat.to(grad.dtype))
                if ctx.needs_input_grad[1]:
                    to_weight = rows.t() @ buffer.permute(0, 2, 3, 1).flatten(0, 2).to(rows.dtype)
        return None, None if to_weight is None else to_weight.to(weight.dtype).view_as(weight), None


def _update(segment: Tensor, change: Tensor, residual: bool) -> None:
    segment.add_(change) if residual else segment.copy_(change)


def _dense_copy(x: Tensor) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return x.clone(memory_format=torch.channels_last if last else torch.contiguous_format)


def _copy(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    return torch.empty_strided(tensor.size(), stride, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
