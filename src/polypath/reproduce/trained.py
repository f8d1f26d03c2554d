"""A trained arm that experiments measure: its network, its images, its training log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from polypath.analysis.answers import chosen_paths
from polypath.analysis.finished_run import FinishedRun
from polypath.analysis.scoring import score
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.cache import digest
from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData
from polypath.profiling.cost import Cost, cost
from polypath.reproduce.measured import Correct
from polypath.training.build import build_net
from polypath.training.engine import load_weights
from polypath.training.result import RunResult, result_of

FAILED = "failed.json"

Choice = Mapping[str, Paths] | Iterable[str] | None
"""Paths by name, a list of texts (``whole``, ``column=3``), or None: the whole network, followed by every named
path."""


class Trained(FinishedRun):
    """An arm, trained with one seed.

    Attributes:
        arm, seed: the arm's name and the run's seed.
        failed: the reason why there is no trained network (the loss was not finite), else empty. A failed run predicts
            the first class for every image, as a network with NaN logits does.
    """

    def __init__(
        self,
        arm: str,
        seed: int,
        folder: Path,
        data: ImageData,
        device: str | None = None,
        *,
        by: str = "reproduce",
    ) -> None:
        super().__init__(folder, device, data, by=by)
        self.arm, self.seed = arm, seed
        failed = folder / FAILED
        self.failed = failed.read_text(encoding="utf-8").strip() if failed.is_file() else ""

    @cached_property
    def net(self) -> PathNet:
        """The network with the weights that the run reports, in evaluation mode (untrained if the run failed)."""
        return self.placed(build_net(self.recipe, self.folder).eval()) if self.failed else super().net

    @property
    def result(self) -> RunResult:
        """The result of training.

        Raises:
            ValueError: the run failed.
        """
        return result_of(self.folder)

    @cached_property
    def labels(self) -> Tensor:
        """The labels ``(images,)`` of the test images, in their order."""
        return torch.cat([y.cpu() for _, y in self.test_batches(looks=0)])

    @cached_property
    def images(self) -> str:
        """An identifier of the test set, independent of the image size."""
        return f"{len(self.labels)}-{digest(self.labels)[:12]}"

    def metrics(self) -> list[dict[str, Any]]:
        """Return a row for each epoch: ``epoch``, ``train_loss``, ``train_error``, and the objective's metrics."""
        return self.run.metrics()

    def test_batches(self, looks: int = 1) -> BatchesBase:
        """Return batches of the test images, in order, as for evaluation. ``looks`` is as in :meth:`batches`."""
        return self.batches("test", looks=looks)

    def choice(self, paths: Choice = None, net: PathNet | None = None) -> dict[str, Paths]:
        """Return paths by name, from any form of :data:`Choice`."""
        return chosen_paths(net or self.net, paths)

    def statistics(
        self, paths: Choice = None, images: int = 2000, net: PathNet | None = None
    ) -> BatchNormStatistics | None:
        """Recalibrate batch-norm for each path on at most ``images`` training images, as :meth:`recalibrated` does."""
        return self.recalibrated(self.choice(paths, net).values(), images, net)

    def logits(self, paths: Choice = None, *, recalibrated: int = 0, net: PathNet | None = None) -> dict[str, Tensor]:
        """Return the logits ``(images, classes)`` of each path on the test images.

        Args:
            recalibrated: the number of training images on which each path's batch-norm is recalibrated; 0 uses the
                network's own statistics.
            net: another network of this arm (one of :meth:`epochs`).
        """
        net = net or self.net
        chosen = self.choice(paths, net)
        if self.failed:
            first = torch.eye(1, net.num_classes).expand(len(self.labels), -1)
            return dict.fromkeys(chosen, first)
        stats = self.statistics(chosen, recalibrated, net) if recalibrated else None
        batches = self.test_batches(looks=len(chosen))
        scores = score(net, chosen, batches, stats=stats, views=batches.views, keep_logits=True)
        return {name: s.logits for name, s in scores.items() if s.logits is not None}

    def correct(self, paths: Choice = None, *, recalibrated: int = 0, net: PathNet | None = None) -> dict[str, Correct]:
        """Return which test images each path classifies correctly. Arguments are as in :meth:`logits`."""
        return {
            name: self.marked(logits) for name, logits in self.logits(paths, recalibrated=recalibrated, net=net).items()
        }

    def training_loss(
        self, paths: Choice = None, *, recalibrated: int = 0, images: int = 2000, net: PathNet | None = None
    ) -> dict[str, float]:
        """Return the mean cross-entropy of each path on at most ``images`` training images, without augmentation and in
        evaluation mode."""
        net = net or self.net
        chosen = self.choice(paths, net)
        if self.failed:
            return dict.fromkeys(chosen, math.nan)
        stats = self.statistics(chosen, recalibrated, net) if recalibrated else None
        batches, labels = [], []
        for x, y in self.statistics_batches():
            batches.append((x, y))
            labels.append(y.cpu())
            if sum(map(len, labels)) >= images:
                break
        scores, truth = score(net, chosen, batches, stats=stats, keep_logits=True), torch.cat(labels)
        return {
            name: float(functional.cross_entropy(s.logits.float(), truth))
            for name, s in scores.items()
            if s.logits is not None
        }

    def marked(self, logits: Tensor) -> Correct:
        """Return which test images these logits or probabilities ``(images, classes)`` classify correctly."""
        return Correct((logits.argmax(1) == self.labels).numpy(), self.images)

    def epochs(self) -> Iterator[tuple[int, PathNet]]:
        """Yield the epoch (counted from 1) and the network of each checkpoint that the run kept (``Recipe.keep``)."""
        for step in self.run.checkpoints.steps():
            checkpoint = self.run.checkpoints.load(step)
            if checkpoint.state["batch"]:
                continue  # a checkpoint within an epoch
            net = build_net(self.recipe, self.folder)
            prefix = "ema/" if self.recipe.averages else "model/"
            tensors = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
            load_weights(net, tensors)
            yield checkpoint.state["epoch"], self.placed(net.eval())

    def cost(self, paths: Paths | str | None = None) -> Cost:
        """Count parameters, MACs and activation memory of a path, for one image."""
        return cost(self.net, paths, self.image_size)
