"""A fixed first layer that whitens patches of the image. It is this library's own; no family's paper has it.

The 3×3 patches x of the training images have a mean m and a covariance C = E Λ Eᵀ. The n eigenvectors with the largest
eigenvalues are kept. Each gives two maps, the ReLU of ± λ^(-1/2) eᵀ(x - m), so nothing is lost. Such layers are common
in fast training on CIFAR-10 (Page 2018, 3×3 patches; Jordan 2024, 2×2 patches, both signs).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from polypath.layers.conv import ConvUnit

SIDE = 3  # of a patch
FLOOR = 1e-4  # eigenvalues are raised to at least this share of the largest
ACROSS = 32  # patches per image, about this many at most along each side


def most_directions(in_chans: int) -> int:
    """The number of values in a patch."""
    return in_chans * SIDE**2


def whitening_unit(in_chans: int, directions: int) -> ConvUnit:
    """The layer, ``(N, in_chans, H, W)`` to ``(N, 2·directions, H, W)``; its weights are not trained."""
    unit = ConvUnit(in_chans, 2 * directions, SIDE, order="conv-act", bias=True)
    unit.conv.requires_grad_(False)
    return unit


@torch.no_grad()
def set_whitening(unit: ConvUnit, batches: Iterable[Tensor]) -> None:
    """Set the layer's weights from the patches of these images ``(N, C, H, W)``, normalised for the network.

    Raises:
        ValueError: images whose patches are all the same.
    """
    mean, values, vectors = patch_spectrum(batches)
    if not values[0] > 1e-12 * (1 + mean.square().sum()):  # anything smaller is rounding
        raise ValueError("whitening: all patches of the training images are the same, so they have no directions")
    directions, weight, bias = unit.conv.out_channels // 2, unit.conv.weight, unit.conv.bias
    assert bias is not None
    scale = values.clamp(min=FLOOR * float(values[0])).rsqrt()
    filters = (vectors * scale).T[:directions]
    weight.copy_(torch.cat([filters, -filters]).view_as(weight))
    bias.copy_(torch.cat([-filters @ mean, filters @ mean]))


def patch_spectrum(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(d,)`` of inner patches; eigenvalues ``(d,)``, largest first, and eigenvectors ``(d, d)``, in columns, of
    their covariance. In float64; d = :func:`most_directions`."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for images in batches:
        if min(images.shape[-2:]) < SIDE:
            continue
        step = max(1, min(images.shape[-2:]) // ACROSS)
        patches = images.unfold(2, SIDE, step).unfold(3, SIDE, step)  # (N, C, down, across, 3, 3)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
        count, total, squares = count + len(rows), total + rows.sum(0), squares + rows.T @ rows
    if not count:
        raise ValueError(f"whitening: needs training images of at least {SIDE}x{SIDE} pixels")
    mean = total / count
    covariance = squares / count - torch.outer(mean, mean)
    values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(covariance))  # pyright: ignore[reportUnknownMemberType] (torch does not type it)
    return mean, values.flip(0), vectors.flip(1)
