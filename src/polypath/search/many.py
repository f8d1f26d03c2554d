"""Evaluates many choices of one network together, and finds which images each choice classifies correctly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polypath.core.batchnorm import BatchNormStatistics, buffers, lent, norms
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.reuse import modules_of, norms_inside, version_of
from polypath.core.values import from_the_input, run_values, values_of
from polypath.core.wiring import Unit
from polypath.data.augment import average_views
from polypath.profiling.cost import PathMacs, Size


class ManyPaths:
    """A network that runs under many choices at once. A feature map that is the same under several choices is computed
    only once (:mod:`polypath.core.values`).

    Args:
        net: the network, in evaluation mode.
        stats: recalibrated batch-norm statistics of all choices; None means the network's own statistics.
    """

    def __init__(self, net: PathNet, choices: Sequence[Paths], stats: BatchNormStatistics | None = None) -> None:
        self.net, self.stats = net, stats
        self._order = sorted(range(len(choices)), key=lambda k: from_the_input(net.wiring, choices[k]))
        self.choices = [choices[k] for k in self._order]
        versions = [] if stats is None else [version_of(net.wiring, stats[choice]) for choice in self.choices]
        self.values = values_of(net.wiring, self.choices, versions)
        self._norms = norms(net)
        self._inside = norms_inside(net.wiring, self._norms)

    def macs(self, counted: PathMacs, size: Size) -> int:
        """Return the MACs for one image under all choices together."""
        known: dict[str, int] = {}
        for value in self.values.made:
            if isinstance(value.step.node, Unit) and value.step.node.name not in known:
                known |= counted.by_node(self.choices[value.choice], size)
        return sum(known.get(value.step.node.name, 0) for value in self.values.made)

    @torch.no_grad()
    def right(self, x: Tensor, labels: Tensor, views: int = 1) -> NDArray[np.bool_]:
        """Return which images each choice classifies correctly, ``(choices, N)``.

        Args:
            x: images ``(N · views, C, H, W)``, on the network's device. The answers for all views (crops) of an image
                are averaged.
            labels: labels ``(N,)``.
        """
        found = np.empty((len(self.choices), len(labels)), bool)
        with lent(self._norms.values()) if self.stats is not None else nullcontext():
            for k, logits in run_values(self.net, x, self.values, self._lending):
                hits = average_views(logits, views).argmax(1) == labels.to(logits.device)
                found[self._order[k]] = hits.cpu().numpy()
        return found

    @contextmanager
    def _lending(self, number: int) -> Iterator[None]:
        if self.stats is not None:
            value = self.values[number]
            bank = self.stats[self.choices[value.choice]]
            for module in modules_of(value.step):
                for name in self._inside(*module):
                    norm, (mean, var) = self._norms[name], bank[name]
                    old, _ = buffers(norm)
                    norm.running_mean, norm.running_var = mean.to(old), var.to(old)
        yield
