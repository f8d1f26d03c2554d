"""1×1 convs as matrix products, which are faster on a CPU for contiguous maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.recording import recording, symbolic


class PointwiseConv(nn.Conv2d):
    """A 1×1 conv of maps ``(B, N, H, W)`` to ``(B, n, H, W)`` that runs :func:`pointwise` where that is faster.

    It is faster on a CPU for several images with contiguous maps, if each image has at least as many inputs and outputs
    as the conv has weights. (The weights' gradient is computed for each image and then summed.) With
    ``products = False``, torch's conv always runs. With a ``stride``, the pixels are selected before the conv.
    """

    products = True

    def __init__(self, in_chans: int, out_chans: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__(in_chans, out_chans, 1, stride, bias=bias)  # pyright: ignore[reportUnknownMemberType] (torch's device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        if self.products and self.stride != (1, 1):  # in a recorded graph too, since torch differentiates it
            return F.conv2d(input[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)
        if self.products and not (recording() or symbolic(input)) and input.dim() == 4 and len(input) > 1:
            values = (input.shape[1] + self.out_channels) * input.shape[2] * input.shape[3]
            if self.weight.numel() <= values:
                return pointwise(input, self.weight, self.bias)
        return super().forward(input)


PLAIN_CONVS = (nn.Conv2d, PointwiseConv)
"""The conv classes that are completely described by weights, bias and geometry."""


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a 1×1 conv of maps ``(B, N, H, W)`` with weights ``(n, N, 1, 1)``."""
    if x.device.type != "cpu" or not x.is_contiguous():
        return F.conv2d(x, weight, bias)
    # a conv or matmul would first copy x into another layout
    maps = _products(weight.flatten(1), x)
    return maps if bias is None else maps + bias[:, None, None]


def channels_last(x: Tensor) -> bool:
    """Return whether the values of each pixel are adjacent in memory; ``x`` may be a slice of the channels."""
    return x.stride(1) == 1 and not x.is_contiguous()


def layout(x: Tensor) -> torch.memory_format:
    """Return the memory format of dense maps with the layout of ``x``."""
    return torch.channels_last if channels_last(x) else torch.contiguous_format


def add_product(out: Tensor, weight: Tensor, x: Tensor) -> None:
    """Add a 1×1 conv of maps ``(B, N, H, W)`` with weights ``(n, N)`` to maps ``out`` ``(B, n, H, W)``, in place.

    ``x`` and ``out`` may be slices of the channels of maps that are contiguous or channels-last.
    """
    weight, x = weight.to(out.dtype), x.to(out.dtype)
    with torch.autocast(out.device.type, enabled=False):
        if channels_last(out):
            pixels(out).addmm_(pixels(x), weight.t())
        elif out.is_contiguous():
            out.view(*out.shape[:2], -1).baddbmm_(weight.expand(len(out), -1, -1), x.flatten(2))
        else:  # baddbmm would run one product per image
            out.add_(_products(weight, x))


def weight_gradient(given: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient ``(n, N)`` of a 1×1 conv's weights.

    ``given`` is the gradient ``(B, n, H, W)`` of the conv's output, ``x`` the conv's input ``(B, N, H, W)``.
    """
    x = x.to(given.dtype)
    with torch.autocast(given.device.type, enabled=False):
        if channels_last(x):
            return (pixels(x).t() @ pixels(given)).t()
        return torch.bmm(given.flatten(2), x.flatten(2).transpose(1, 2)).sum(0)


def _products(weight: Tensor, x: Tensor) -> Tensor:
    """Compute ``weight``·x for each image."""
    return torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2)).view(len(x), len(weight), *x.shape[2:])


def pixels(x: Tensor) -> Tensor:
    """Reshape maps ``(B, N, H, W)`` to pixels ``(B·H·W, N)``: a view if the maps are channels-last, else a copy."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
