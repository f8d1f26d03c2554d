"""Re-estimate the batch-norm statistics of paths from training images.

The estimator is the cumulative one of "once for all" (Cai et al., ICLR 2020): the path runs with every one of its
batch-norms normalising by the statistics of the batch at hand, and the batches' means and (unbiased) variances are
averaged, weighted by the images that the norm saw (where gates decide, not all reach it); no momentum. Each norm thus
sees inputs as the norms before it leave them in training. Everything else, dropout and the scales of stochastic depth
too, runs as in evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polypath.core.arguments import SEVERAL, SEVERAL_PATHS, takes
from polypath.core.batchnorm import BatchNormStatistics, buffers, lent, norms
from polypath.core.checks import WHOLE_NUMBER, optional, whole
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths


@takes(net=NETWORK, paths=SEVERAL_PATHS, batches=SEVERAL, num_images=whole(2), seed=optional(WHOLE_NUMBER))
@torch.no_grad()
def recalibrate(
    net: PathNet,
    paths: Iterable[Paths | str],
    batches: Iterable[Sequence[Tensor]],
    num_images: int = 2000,
    *,
    seed: int | None = None,
) -> BatchNormStatistics:
    """Statistics of every batch-norm alive under each of ``paths``, from at most ``num_images`` training images.

    ``batches`` gives ``(images, ...)`` with images ``(N, C, H, W)``, N at least 2; they are gone through once, for all
    paths. They should be drawn at random (batches of a single class have other statistics); ``seed`` is recorded as
    what drew them. The network's buffers, mode and gradients stay as they were.

    Raises:
        ValueError: an illegal path, ``num_images`` below 2, batches without two images.
    """
    chosen = [net.paths(p) for p in paths]
    known, device = norms(net), next(net.parameters()).device
    sums: dict[Paths, dict[str, _Sum]] = {p: {} for p in chosen}
    modes, used = [(module, module.training) for module in net.modules()], 0
    net.eval()
    seen: Counter[_BatchNorm] = Counter()
    hooks = [norm.register_forward_pre_hook(_counting(seen, norm)) for norm in known.values()]
    try:
        with lent(known.values()):
            for images in _first(batches, num_images):
                images, used = images.to(device), used + len(images)
                for p, at in sums.items():
                    _fresh(known.values())
                    seen.clear()
                    net(images, paths=p)
                    for name, norm in known.items():
                        if norm.num_batches_tracked:
                            at.setdefault(name, _Sum()).add(norm, seen[norm])
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    if not used:
        raise ValueError("no images to estimate statistics from: give batches of at least two")
    banks = {p: {name: s.means() for name, s in at.items()} for p, at in sums.items()}
    return BatchNormStatistics(banks, used, seed)


class _Sum:
    """Image-weighted sums of a norm's batch statistics, in float64."""

    def __init__(self) -> None:
        self.mean = self.var = torch.zeros((), dtype=torch.float64)
        self.images, self.dtype = 0, torch.float32

    def add(self, norm: _BatchNorm, images: int) -> None:
        mean, var = buffers(norm)
        self.mean = self.mean + mean.cpu().double() * images
        self.var = self.var + var.cpu().double() * images
        self.images, self.dtype = self.images + images, mean.dtype

    def means(self) -> tuple[Tensor, Tensor]:
        return (self.mean / self.images).to(self.dtype), (self.var / self.images).to(self.dtype)


def _counting(seen: Counter[_BatchNorm], norm: _BatchNorm) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[norm] += len(inputs[0])

    return count


def _fresh(all_norms: Iterable[_BatchNorm]) -> None:
    """New buffers, and a mode in which one forward fills them with the statistics of its batch."""
    for norm in all_norms:
        mean, var = buffers(norm)
        norm.running_mean, norm.running_var = torch.zeros_like(mean), torch.ones_like(var)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
        norm.training, norm.momentum = True, None  # a norm met several times in a forward averages its visits


def _first(batches: Iterable[Sequence[Tensor]], num_images: int) -> Iterator[Tensor]:
    for batch in batches:
        images = batch[0][:num_images]
        num_images -= len(images)
        if len(images) > 1:  # a single image has no variance on a 1x1 map
            yield images
        if num_images < 2:
            return
