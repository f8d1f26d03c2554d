"""The units of a fused network: a conv with its activation, and a part of a conv's maps."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from polypath.core.checks import check, one_of
from polypath.core.recording import recording

PACK_FROM = 100_000  # convs with fewer weights are not packed
ACTS = ("none", "relu", "clamp")


class FoldedConv(nn.Module):
    """A conv with bias, followed by nothing, a ReLU, or a clamp with bounds for each channel.

    The clamp is for units in the order conv, ReLU, batch-norm. With the norm's scale s and shift t, s·relu(z) + t is
    max(s·z + t, t) for s > 0 and min(s·z + t, t) for s < 0. So s and t go into the conv's weights and bias, and t
    becomes a bound. This is exact at zero-padded borders too.

    Args:
        conv: a conv with folded weights and bias; it is not copied.
        act: ``none``, ``relu`` or ``clamp``.
        low, high: bounds of the clamp, ``(C,)`` each; None for no bound.
    """

    packs = True  # whether large weights are reordered for the processor once instead of at every call
    low: Tensor | None
    high: Tensor | None

    def __init__(self, conv: nn.Conv2d, act: str = "none", low: Tensor | None = None, high: Tensor | None = None):
        super().__init__()
        check("act", act, one_of(*ACTS))
        if (low is not None or high is not None) != (act == "clamp"):
            raise ValueError(f"act = {act!r}: only a clamp can have bounds, and a clamp needs at least one")
        self.conv, self.act = conv, act
        for name, bound in (("low", low), ("high", high)):
            self.register_buffer(name, None if bound is None else bound.view(-1, 1, 1))
        self._packed: tuple[Any, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.act == "clamp" and self.high is None and recording():
            assert self.conv.bias is not None
            assert self.low is not None
            low = self.low  # runtimes can fuse a conv with a ReLU and an addition, but not with a maximum
            bias = self.conv.bias - low.flatten()
            return self.conv._conv_forward(x, self.conv.weight, bias).relu() + low
        if self._packable(x):
            z = self._run_packed(x)
            return z if self.act == "relu" else self.activated(z)
        return self.activated(self.conv(x))

    def _packable(self, x: Tensor) -> bool:
        conv = self.conv
        return (
            self.packs
            and not recording()
            and conv.weight.numel() >= PACK_FROM
            and x.device.type == "cpu"
            and x.dtype == conv.weight.dtype == torch.float32
            and conv.groups == 1
            and not isinstance(conv.padding, str)
            and torch.backends.mkldnn.is_available()
            and not (torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad))
        )

    def _run_packed(self, x: Tensor) -> Tensor:
        """Run the conv and its ReLU with weights in oneDNN's layout, which depends on the input's size."""
        conv = self.conv
        key = x.shape, conv.weight.data_ptr()
        form: list[Any] = [list(cast(Any, conv.padding)), list(conv.stride), list(conv.dilation), 1]
        if self._packed is None or self._packed[0] != key:
            weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *form, list(x.shape))
            self._packed = key, weight
        act = "relu" if self.act == "relu" else "none"
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed[1], conv.bias, *form, act, [], "")

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._packed = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # packed weights can be rebuilt but not copied

    def activated(self, z: Tensor) -> Tensor:
        """Apply the activation to the conv's output ``z``, in place."""
        if self.act == "relu":
            return z.relu_()
        return z.clamp_(self.low, self.high) if self.act == "clamp" else z

    @property
    def bounds(self) -> tuple[Tensor | None, Tensor | None]:
        """The lower and upper bounds of the channels, ``(C,)`` each; None if no channel has such a bound."""
        if self.act == "relu":
            return self.conv.weight.new_zeros(self.conv.out_channels), None
        low, high = (None if bound is None else bound.flatten() for bound in (self.low, self.high))
        return low, high

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Change the weights so that the output is multiplied by ``factor``, which must be above 0."""
        assert self.conv.bias is not None
        assert factor > 0
        for tensor in (self.conv.weight, self.conv.bias, self.low, self.high):
            if tensor is not None:
                tensor.mul_(factor)

    def extra_repr(self) -> str:
        return f"act={self.act}"


class Part(nn.Module):
    """A module that returns a part of the maps, ``start`` to ``end``, as a view."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.end]

    def extra_repr(self) -> str:
        return f"{self.start}:{self.end}"


def empty_conv(like: nn.Conv2d, in_chans: int, out_chans: int) -> nn.Conv2d:
    """Make a conv with the geometry of ``like``, other widths and a bias. The weights still have to be set."""
    form: Any = cast(Any, like.kernel_size), like.stride, like.padding, like.dilation, like.groups
    return nn.Conv2d(in_chans, out_chans, *form, device=like.weight.device, dtype=like.weight.dtype)
