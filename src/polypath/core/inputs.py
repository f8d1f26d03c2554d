"""Image batches that fit a network in size, channels, dtype and device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from polypath.core.checks import Rule, check, each, whole
from polypath.core.network import PathNet

_SIDE = whole(1)
_SIZE = Rule(
    "a side in pixels, or (height, width)",
    lambda value: _SIDE.fits(value) or each(_SIDE, count=2).fits(value),
)


def sides(size: int | Sequence[int], name: str = "size") -> tuple[int, int]:
    """Return (height, width) for a size, which may also be the side of a square. In errors, it is called ``name``.

    Raises:
        ValueError: anything other than one or two positive numbers of pixels.
    """
    found = cast(int | tuple[int, int], check(name, size, _SIZE))
    return found if isinstance(found, tuple) else (found, found)


def image_batch(
    net: PathNet, size: int | Sequence[int] = 32, batch_size: int = 1, *, seed: int | None = None
) -> Tensor:
    """Make images ``(N, C, H, W)`` with the dtype and device of ``net``'s weights.

    With ``seed``, the pixels are random, otherwise uninitialised.

    Raises:
        ValueError: an illegal size or batch size.
    """
    batch_size = check("batch_size", batch_size, whole(1))
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    shape = (batch_size, net.in_chans, *sides(size))
    if seed is None or like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(like)
