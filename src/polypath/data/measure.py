"""Mean and standard deviation of each channel of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from polypath.data.config import Normalise
from polypath.data.seeds import generator
from polypath.data.split import Split, StreamedSplit
from polypath.data.splits import FIXED

MEASURED = 2048  # images of a streamed set that are decoded to measure it
BatchNormStatistics = tuple[tuple[float, ...], tuple[float, ...]]


def normalisation(train: Split | StreamedSplit, how: Normalise) -> BatchNormStatistics:
    """Values to subtract from, and divide by, the pixels (0 … 1) of each channel; see ``DataConfig.normalise``.

    A streamed dataset is measured on a fixed sample of MEASURED images.
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
    """Mean and standard deviation of each channel of ``(N, C, H, W)`` uint8 images, for pixels scaled to 0 … 1.

    Exact, from counts of the 256 levels. For a constant channel, the standard deviation is reported as 1.

    Raises:
        ValueError: no images.
    """
    if len(images) == 0:
        raise ValueError("no images to take mean and standard deviation from")
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
