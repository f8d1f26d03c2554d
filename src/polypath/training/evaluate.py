"""Loss and error on a split."""

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
    """``loss``: mean cross-entropy; ``error``: top-1 error in percent; of ``images`` images."""

    loss: float
    error: float
    images: int


@torch.no_grad()
def evaluate(
    net: nn.Module,
    predict: Callable[[Tensor], Tensor],
    batches: BatchesBase,
    world: World,
    autocast: contextlib.AbstractContextManager | None = None,
) -> Scores:
    """Score ``predict`` (logits or log-probabilities of a batch) with ``net`` in evaluation mode; it is left in the
    mode that it had. Each rank scores the part of the batches that it is given; all get the sum.

    Raises:
        ValueError: no images.
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
            sums.append(
                torch.stack([loss, (logits.argmax(1) != y).sum().to(loss.dtype), torch.full_like(loss, len(y))])
            )
    finally:
        net.train(training)
    rows = torch.stack(sums).tolist() if sums else []
    parts = world.gather(rows)[: batches.order.world_size]  # one where each rank is given all
    loss, wrong, images = (sum(row[i] for part in parts for row in part) for i in range(3))
    if not images:
        raise ValueError("there are no images to score")
    return Scores(loss / images, 100.0 * wrong / images, int(images))
