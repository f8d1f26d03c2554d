"""Measure the mean and standard deviation of each channel of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from polypath.data.config import Normalise
from polypath.data.seeds import generator
from polypath.data.split import Split, StreamedSplit
from polypath.data.splits import FIXED

MEASURED = 2048  # at most this many images of a streamed split are decoded for the measurement
BatchNormStatistics = tuple[tuple[float, ...], tuple[float, ...]]


def normalisation(train: Split | StreamedSplit, how: Normalise) -> BatchNormStatistics:
    """Return the mean and the standard deviation for normalising each channel of pixels in 0 … 1. For ``how``, see
    ``DataConfig.normalise``.

    A streamed split is measured on a fixed sample of at most MEASURED images.
    """
    plain = (0.0,) * train.channels, (1.0,) * train.channels
    if how == "none":
        return plain
    if isinstance(train, StreamedSplit):
        some = torch.randperm(len(train), generator=generator(FIXED, "measure"))[:MEASURED]
        images, _, _ = train.decode(some.tolist())
    else:
        images = train.images
    mean, std = channel_statistics(images)
    return mean, (std if how == "channel" else plain[1])


def channel_statistics(images: Tensor) -> BatchNormStatistics:
    """Compute the mean and standard deviation of each channel of ``(N, C, H, W)`` uint8 images, for pixels scaled to 0
    … 1.

    The result is exact, since it is computed from counts of the 256 levels. For a constant channel, the standard
    deviation is set to 1.

    Raises:
        ValueError: there are no images.
    """
    if len(images) == 0:
        raise ValueError("there are no images; the mean and the standard deviation need at least one")
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for part in images[:, channel].split(4096):
            counts += torch.bincount(part.reshape(-1), minlength=256)
        share = counts / counts.sum()
        mean = float((share * levels).sum())
        var = float((share * (levels - mean) ** 2).sum())
        means.append(mean)
        stds.append(var**0.5 if var > 1e-12 else 1.0)
    return tuple(means), tuple(stds)
