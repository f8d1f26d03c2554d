"""Recalibrate the batch-norm statistics of paths on training images.

The estimator is the cumulative average of "once for all" (Cai et al., ICLR 2020). While a path runs, all batch-norms
normalise by the statistics of the current batch, so the inputs of each norm are as in training. The means and the
unbiased variances of the batches are averaged without momentum. Each batch is weighted by the number of images that
reached the norm, since gates may stop some images. Everything else, including dropout and stochastic depth, runs as in
evaluation.

In this mode the output of a norm depends only on its input batch. So values that paths share, and the statistics of
these values, are computed only once (:mod:`polypath.core.values`). The time grows with the number of distinct values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] (torch has no public base)

from polypath.core.arguments import SEVERAL, SEVERAL_PATHS, takes
from polypath.core.batchnorm import BatchNormStatistics, buffers, lent, norms
from polypath.core.checks import WHOLE_NUMBER, optional, whole
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths
from polypath.core.reuse import modules_of, norms_inside
from polypath.core.values import from_the_input, run_values, values_of


@takes(net=NETWORK, paths=SEVERAL_PATHS, batches=SEVERAL, num_images=whole(2), seed=optional(WHOLE_NUMBER))
def recalibrate(
    net: PathNet,
    paths: Iterable[Paths | str],
    batches: Iterable[Sequence[Tensor]],
    num_images: int = 2000,
    *,
    seed: int | None = None,
) -> BatchNormStatistics:
    """Measure the statistics of each path's alive batch-norms on at most ``num_images`` training images.

    ``batches`` yields ``(images, ...)`` with images ``(N, C, H, W)``. It is iterated once for all paths; batches of one
    image are skipped. The images should be in random order, because batches of a single class have other
    statistics. ``seed`` is the seed of this order; it is only recorded. The network's buffers, mode and gradients do
    not change.

    Raises:
        ValueError: an illegal path, ``num_images`` below 2, no batch with at least two images.
    """
    found = shared_statistics(net, [net.paths(p) for p in paths], batches, num_images, seed=seed)
    own = {p: {name: (mean.clone(), var.clone()) for name, (mean, var) in bank.items()} for p, bank in found.items()}
    return BatchNormStatistics(own, found.images, seed)


@torch.no_grad()
def shared_statistics(
    net: PathNet,
    paths: Iterable[Paths],
    batches: Iterable[Sequence[Tensor]],
    num_images: int = 2000,
    *,
    seed: int | None = None,
) -> BatchNormStatistics:
    """Recalibrate thousands of paths as :func:`recalibrate` does, but store statistics that paths share only once.

    Do not change the tensors in place, because paths share them.

    Raises:
        ValueError: as in :func:`recalibrate`.
    """
    asked = list(dict.fromkeys(paths))
    chosen = sorted(asked, key=lambda p: from_the_input(net.wiring, p))
    values, known = values_of(net.wiring, chosen), norms(net)
    inside, device = norms_inside(net.wiring, known), next(net.parameters()).device
    sums: list[dict[str, _Sum]] = [{} for _ in range(len(values.made) + 1)]
    modes, used = [(module, module.training) for module in net.modules()], 0
    net.eval()
    seen: Counter[_BatchNorm] = Counter()

    @contextmanager
    def noted(number: int) -> Generator[None]:
        names = dict.fromkeys(name for module in modules_of(values[number].step) for name in inside(*module))
        _fresh(known[name] for name in names)
        seen.clear()
        yield
        for name in names:
            if known[name].num_batches_tracked:
                sums[number].setdefault(name, _Sum()).add(known[name], seen[known[name]])

    hooks = [norm.register_forward_pre_hook(_counting(seen, norm)) for norm in known.values()]
    try:
        with lent(known.values()):
            for images in _first(batches, num_images):
                used += len(images)
                for _ in run_values(net, images.to(device), values, noted):
                    pass
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    if not used:
        raise ValueError("there are no images to recalibrate on; give batches of at least two images")
    known_means: dict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor]] = {}  # choices share these tensors

    def bank(choice: int) -> dict[str, tuple[Tensor, Tensor]]:
        visits: dict[str, list[int]] = {}
        for number in sorted(values.behind(choice)):
            for name in sums[number]:
                visits.setdefault(name, []).append(number)
        found = {name: tuple(visits[name]) for name in known if name in visits}
        for name, numbers in found.items():
            if (name, numbers) not in known_means:
                known_means[name, numbers] = _means([sums[number][name] for number in numbers])
        return {name: known_means[name, numbers] for name, numbers in found.items()}

    banks = {p: bank(k) for k, p in enumerate(chosen)}
    return BatchNormStatistics({p: banks[p] for p in asked}, used, seed)


class _Sum:
    """A sum of a norm's batch statistics, weighted by the number of images, in float64."""

    def __init__(self) -> None:
        self.mean = self.var = torch.zeros((), dtype=torch.float64)
        self.images, self.dtype = 0, torch.float32

    def add(self, norm: _BatchNorm, images: int) -> None:
        mean, var = buffers(norm)
        self.mean = self.mean + mean.cpu().double() * images
        self.var = self.var + var.cpu().double() * images
        self.images, self.dtype = self.images + images, mean.dtype


def _means(visits: Sequence[_Sum]) -> tuple[Tensor, Tensor]:
    """Compute mean and variance over all calls of a norm in one forward pass."""
    images, dtype = sum(s.images for s in visits), visits[0].dtype
    mean, var = sum(s.mean for s in visits) / images, sum(s.var for s in visits) / images
    return torch.as_tensor(mean).to(dtype), torch.as_tensor(var).to(dtype)


def _counting(seen: Counter[_BatchNorm], norm: _BatchNorm) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[norm] += len(inputs[0])

    return count


def _fresh(all_norms: Iterable[_BatchNorm]) -> None:
    """Give the norms new buffers, and a mode in which a forward pass stores the batch's statistics in the buffers."""
    for norm in all_norms:
        mean, var = buffers(norm)
        norm.running_mean, norm.running_var = torch.zeros_like(mean), torch.ones_like(var)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
        norm.training, norm.momentum = True, None  # with None, several calls in one forward pass are averaged


def _first(batches: Iterable[Sequence[Tensor]], num_images: int) -> Iterator[Tensor]:
    for batch in batches:
        images = batch[0][:num_images]
        num_images -= len(images)
        if len(images) > 1:  # a single image has no variance on a 1x1 map
            yield images
        if num_images < 2:
            return
