"""GUNN's layer in one buffer that is updated in place, by Algorithm 1 in training (Qiao et al. 2018, §3.4).

The reference, :meth:`polypath.layers.gunn.layer.GunnLayer.reference`, is a literal implementation of Eq. 4. It writes
all N channels again for each of the P segments and saves every copy for the backward pass. Here one buffer contains the
newest values. For each segment, the backward pass first restores the segment's old value from the layer's input. Then
it computes the gradient of the segment's unit. So each unit's input is restored bit for bit, and no unit runs twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from polypath.layers.gunn.steps import Maps, changed, steps_of, update


def in_place(x: Tensor, units: Sequence[nn.Module], residual: bool, *, gradual: bool = True) -> Tensor:
    """Run the layer without gradients, in one buffer besides ``x``."""
    buffer = _dense_copy(x)
    for segment, unit in zip(buffer.chunk(len(units), dim=1), units, strict=True):
        update(segment, changed(unit, buffer if gradual else x), residual)
    return buffer


def algorithm1(x: Tensor, units: Sequence[nn.Module], parameters: Sequence[Sequence[Tensor]], residual: bool) -> Tensor:
    """Run the gradual layer by Algorithm 1, with gradients for ``x`` and for each unit's ``parameters``.

    This saves ``x``, the result, and the tensors that the units save. A simultaneous layer needs as much memory. A
    second backward pass over a retained graph is possible.

    Raises:
        RuntimeError: in the backward pass, if a second-order gradient is requested (``create_graph=True``).
    """
    unique = list({id(p): p for own in parameters for p in own}.values())
    out = _Algorithm1.apply(x, units, parameters, residual, *unique)
    assert isinstance(out, Tensor)
    return out


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
        kept, steps = _Kept(buffer), steps_of(units, parameters, x.device)
        maps = Maps(buffer, buffer.shape[1] // len(units), residual, kept)
        for step in steps:
            step.forward(maps)
        ctx.save_for_backward(x, buffer, *kept.hand_over())
        ctx.kept, ctx.steps, ctx.unique, ctx.form = kept, steps, unique, (maps.size, residual, buffer.stride())
        return buffer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "GUNN's Algorithm 1 has no second-order gradient (create_graph=True): "
                "set backward='reference' on the GunnLayers"
            )
        x, y, *tensors = ctx.saved_tensors
        size, residual, stride = ctx.form
        buffer, grad = _copy(y, stride), _copy(grads[0], stride)
        maps = Maps(buffer, size, residual, ctx.kept, x, grad)
        sums: dict[int, Tensor | None] = dict.fromkeys(map(id, ctx.unique))
        with ctx.kept.lent(buffer, tensors):
            for step in reversed(ctx.steps):
                for p, g in step.backward(maps):
                    earlier = sums[id(p)]
                    sums[id(p)] = g if earlier is None else earlier if g is None else earlier + g
        return (grad if ctx.needs_input_grad[0] else None, None, None, None, *sums.values())


class _Kept:
    """A store of the tensors that the units' graphs save for the backward pass.

    The outer autograd node owns the saved tensors; the inner graphs contain only indices. A tensor inside the buffer is
    not saved, but read from the restored buffer.
    """

    def __init__(self, buffer: Tensor) -> None:
        self.storage: torch.UntypedStorage | None = buffer.untyped_storage()
        self.tensors: list[Tensor] = []
        self.versions: list[int] = []
        self.restored: Tensor | None = None

    def keeping(self) -> contextlib.AbstractContextManager[Any]:
        return saved_tensors_hooks(self.pack, self.unpack)

    def pack(self, tensor: Tensor) -> Any:
        if tensor.untyped_storage() is self.storage:
            return tensor.size(), tensor.stride(), tensor.storage_offset()
        self.tensors.append(tensor.detach())
        self.versions.append(tensor._version)
        return len(self.tensors) - 1

    def unpack(self, key: Any) -> Tensor:
        if isinstance(key, int):
            return self.tensors[key]
        assert self.restored is not None
        return self.restored.as_strided(*key)

    def hand_over(self) -> list[Tensor]:
        tensors, self.tensors, self.storage = self.tensors, [], None
        if any(t._version != version for t, version in zip(tensors, self.versions, strict=True)):
            raise RuntimeError("an update unit wrote in place to a tensor that its gradient needs")
        return tensors

    @contextlib.contextmanager
    def lent(self, buffer: Tensor, tensors: list[Tensor]) -> Generator[None]:
        self.restored, self.tensors = buffer, tensors
        try:
            yield
        finally:
            self.restored, self.tensors = None, []


def _dense_copy(x: Tensor) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return x.clone(memory_format=torch.channels_last if last else torch.contiguous_format)


def _copy(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    return torch.empty_strided(tensor.size(), stride, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
