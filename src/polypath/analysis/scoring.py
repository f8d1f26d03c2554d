"""Error and cost of every path of a network: the rows of the path table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polypath.core.batchnorm import BatchNormStatistics, applied
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.augment import average_views


@dataclass(frozen=True)
class Score:
    """A top-1 error in percent, measured on ``images`` images, with the ``logits`` ``(images, classes)`` on request."""

    error: float
    images: int
    logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PathRow:
    """A row of the path table: the error and the cost of one path.

    Attributes:
        name: the path's name in its family.
        paths: the path's canonical text.
        error: top-1 error, in percent, with the network's own batch-norm statistics.
        error_recalibrated: top-1 error with statistics recalibrated for the path; None if not measured.
        params, macs, activation_bytes: parameters, multiply-adds and memory of the activations for one image; see
            :func:`polypath.profiling.cost.cost`.
        depth: number of layers in the path's deepest chain.
        p50_ms, p95_ms: measured latency; None if not measured.
    """

    name: str
    paths: str
    error: float
    error_recalibrated: float | None = None
    params: int
    macs: int
    activation_bytes: int
    depth: int
    p50_ms: float | None = None
    p95_ms: float | None = None

    @property
    def best_error(self) -> float:
        """The recalibrated error if there is one, else ``error``."""
        return self.error if self.error_recalibrated is None else self.error_recalibrated


@torch.no_grad()
def score(
    net: PathNet,
    paths: Mapping[str, Paths],
    batches: Iterable[Sequence[Tensor]],
    *,
    stats: BatchNormStatistics | None = None,
    views: int = 1,
    keep_logits: bool = False,
) -> dict[str, Score]:
    """Measure the top-1 error of each path on all images of ``batches``. Each path runs once on each batch, in float32.

    ``batches`` yields images ``(N, C, H, W)`` and labels ``(N,)``. If ``views`` is above 1, there are N × ``views``
    images: consecutive views (crops) of each labelled image, whose probabilities are averaged. With ``stats``, each
    path runs with the statistics that were recalibrated for it. The network runs in evaluation mode; its mode is
    restored.

    Raises:
        ValueError: there are no images, a label is not a class of the network, or ``stats`` lacks a path.
    """
    from torchmetrics.classification import MulticlassAccuracy

    if not paths:
        raise ValueError("there are no paths to score: give at least one")
    device, classes = next(net.parameters()).device, net.num_classes
    accuracy = {name: MulticlassAccuracy(classes, average="micro", validate_args=False).to(device) for name in paths}
    kept: dict[str, list[Tensor]] = {name: [] for name in paths}
    modes, images = [(module, module.training) for module in net.modules()], 0
    net.eval()
    try:
        for x, labels in batches:
            x, labels, images = x.to(device), labels.to(device), images + len(labels)
            if int(labels.max()) >= classes or int(labels.min()) < 0:
                wrong = int(labels.max()) if int(labels.max()) >= classes else int(labels.min())
                raise ValueError(f"label {wrong}: the network has {classes} classes, so labels are 0 to {classes - 1}")
            for name, p in paths.items():
                if stats is None:
                    logits = net(x, paths=p)
                else:
                    with applied(net, stats[p]):
                        logits = net(x, paths=p)
                logits = average_views(logits, views)
                accuracy[name].update(logits, labels)
                if keep_logits:
                    kept[name].append(logits.cpu())
    finally:
        for module, training in modes:
            module.training = training
    if not images:
        raise ValueError("there are no images to score paths on: the split is empty")
    return {
        name: Score(round(100 * (1 - float(a.compute())), 4), images, torch.cat(kept[name]) if keep_logits else None)
        for name, a in accuracy.items()
    }
