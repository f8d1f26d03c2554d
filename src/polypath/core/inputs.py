"""Image batches that fit a network: sizes, channels, type and device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polypath.core.network import PathNet


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of images given by their side, or by both.

    Raises:
        ValueError: anything else than one or two positive numbers of pixels.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
        raise ValueError(f"size {size!r}: give a side in pixels, or (height, width)")
    return pair


def image_batch(
    net: PathNet, size: int | Sequence[int] = 32, batch_size: int = 1, *, seed: int | None = None
) -> Tensor:
    """Images ``(N, C, H, W)`` in the type and on the device of ``net``'s weights; drawn from ``seed``, else empty.

    Raises:
        ValueError: a bad size or batch size.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size {batch_size!r}: must be a whole number of at least 1")
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    shape = (batch_size, net.in_chans, *sides(size))
    if seed is None or like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(like)
