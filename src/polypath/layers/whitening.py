"""A fixed first layer that whitens patches of the image. None of the families' papers uses such a layer.

The 3×3 patches x of the training images have a mean m and a covariance C = E Λ Eᵀ. The n eigenvectors e with the
largest eigenvalues λ are kept. Each of them gives two maps, the ReLU of ± λ^(-1/2) eᵀ(x - m), so no information is
lost. These layers are common in fast training on CIFAR-10 (Page 2018: 3×3 patches; Jordan 2024: 2×2 patches, both
signs).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from polypath.layers.conv import ConvUnit

SIDE = 3  # side of a patch, in pixels
FLOOR = 1e-4  # smaller eigenvalues are raised to this share of the largest one
ACROSS = 32  # approximate maximum number of patches along each side of an image


def most_directions(in_chans: int) -> int:
    """Return the number of values in a patch, which is the largest number of directions."""
    return in_chans * SIDE**2


def whitening_unit(in_chans: int, directions: int) -> ConvUnit:
    """Make the layer, which has fixed weights, from ``(N, in_chans, H, W)`` to ``(N, 2·directions, H, W)``."""
    unit = ConvUnit(in_chans, 2 * directions, SIDE, order="conv-act", bias=True)
    unit.conv.requires_grad_(False)
    return unit


@torch.no_grad()
def set_whitening(unit: ConvUnit, batches: Iterable[Tensor]) -> None:
    """Set the layer's weights from the patches of images ``(N, C, H, W)`` that are normalised for the network.

    Raises:
        ValueError: images whose patches are all the same.
    """
    mean, values, vectors = patch_spectrum(batches)
    if not values[0] > 1e-12 * (1 + mean.square().sum()):  # a smaller value is only a rounding error
        raise ValueError("whitening: all patches of the training images are the same, so they cannot be whitened")
    directions, weight, bias = unit.conv.out_channels // 2, unit.conv.weight, unit.conv.bias
    assert bias is not None
    scale = values.clamp(min=FLOOR * float(values[0])).rsqrt()
    filters = (vectors * scale).T[:directions]
    weight.copy_(torch.cat([filters, -filters]).view_as(weight))
    bias.copy_(torch.cat([-filters @ mean, filters @ mean]))


def patch_spectrum(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean and the eigendecomposition of the covariance of a grid of 3×3 patches inside the images.

    Returns the mean ``(d,)``, the eigenvalues ``(d,)``, largest first, and the eigenvectors ``(d, d)`` as columns, all
    in float64. d is :func:`most_directions`."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for images in batches:
        if min(images.shape[-2:]) < SIDE:
            continue
        step = max(1, min(images.shape[-2:]) // ACROSS)
        patches = images.unfold(2, SIDE, step).unfold(3, SIDE, step)  # (N, C, down, across, 3, 3)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
        count, total, squares = count + len(rows), total + rows.sum(0), squares + rows.T @ rows
    if not count:
        raise ValueError(f"whitening needs training images of at least {SIDE}x{SIDE} pixels")
    mean = total / count
    covariance = squares / count - torch.outer(mean, mean)
    values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(covariance))  # pyright: ignore[reportUnknownMemberType] (torch does not type it)
    return mean, values.flip(0), vectors.flip(1)
