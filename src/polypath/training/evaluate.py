"""Evaluate the loss and the error on a split of the images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.precision import at_least_float32
from polypath.data.augment import average_views
from polypath.data.loader import BatchesBase
from polypath.training.distributed import World


@dataclass(frozen=True)
class Scores:
    """The scores of a network: mean cross-entropy ``loss`` and top-1 ``error`` in percent over ``images`` images.
    ``balanced_error`` is the mean of the errors of the classes that have images, in percent.
    """

    loss: float
    error: float
    images: int
    balanced_error: float


@torch.no_grad()
def evaluate(
    net: nn.Module,
    predict: Callable[[Tensor], Tensor],
    batches: BatchesBase,
    world: World,
    autocast: contextlib.AbstractContextManager | None = None,
) -> Scores:
    """Evaluate ``predict``, a function from a batch to logits or log-probabilities, with ``net`` in evaluation mode.

    The mode is restored afterwards. Each rank evaluates its part of the batches, and all ranks get the scores of all
    parts.

    Raises:
        ValueError: there are no images.
    """
    training, sums = net.training, []
    net.eval()
    try:
        for x, y in batches:
            if not len(y):
                continue
            with autocast or contextlib.nullcontext():
                logits = predict(x)
            logits = average_views(at_least_float32(logits), batches.views)
            loss = F.cross_entropy(logits, y, reduction="sum")
            wrong = logits.argmax(1) != y
            counts = [torch.bincount(labels, minlength=logits.shape[1]) for labels in (y, y[wrong])]
            sums.append(torch.cat([loss[None], torch.stack(counts).flatten().to(loss.dtype)]))
    finally:
        net.train(training)
    rows = torch.stack(sums).tolist() if sums else []
    parts = world.gather(rows)[: batches.order.world_size]  # if each rank evaluates all images, use only the first part
    columns = [sum(column) for column in zip(*(row for part in parts for row in part), strict=True)]
    if not columns:
        raise ValueError("there are no images to evaluate on")
    loss, classes = columns[0], len(columns) // 2
    images, wrong = columns[1 : 1 + classes], columns[1 + classes :]
    total = sum(images)
    shares = [100.0 * w / n for w, n in zip(wrong, images, strict=True) if n]
    return Scores(loss / total, 100.0 * sum(wrong) / total, int(total), sum(shares) / len(shares))
