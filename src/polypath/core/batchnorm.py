"""Batch-norm statistics of paths, ``{path: {norm: (mean, var)}}``, kept separately from the network.

In a path, a batch-norm has other inputs than in the whole network, so the network's running mean and variance are wrong
there. :func:`polypath.core.recalibrate.recalibrate` measures each path's statistics, and this module
stores the result. :func:`applied` replaces the network's buffers inside a ``with`` block and then restores the buffers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] (torch has no public base)

from polypath.core.checks import plain
from polypath.core.paths import Paths

if TYPE_CHECKING:
    from polypath.core.network import PathNet

Bank = Mapping[str, tuple[Tensor, Tensor]]
"""The running mean and variance ``(C,)`` of each norm, by the norm's dotted name in the network."""


@dataclass(frozen=True, eq=False)
class BatchNormStatistics(Mapping[Paths, Bank]):
    """A mapping from paths to their recalibrated batch-norm statistics.

    Attributes:
        banks: for each path, the statistics of the norms that run under the path.
        images: the number of training images on which the statistics were measured.
        seed: the seed with which these images were drawn, or None if the first images were used.
    """

    banks: Mapping[Paths, Bank]
    images: int
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "seed"):  # these are written as JSON
            object.__setattr__(self, name, plain(getattr(self, name)))

    def __repr__(self) -> str:
        return f"BatchNormStatistics({len(self)} paths, {self.images:,} images, seed {self.seed})"

    def __getitem__(self, paths: Paths) -> Bank:
        if paths not in self.banks:
            known = ", ".join(str(p) for p in list(self.banks)[:12])
            raise ValueError(f"path {str(paths)!r} has no recalibrated statistics, unlike the paths {known}")
        return self.banks[paths]

    def __iter__(self) -> Iterator[Paths]:
        return iter(self.banks)

    def __len__(self) -> int:
        return len(self.banks)

    def __contains__(self, paths: object) -> bool:
        return paths in self.banks

    @property
    def record(self) -> dict[str, int | None]:
        """The number of images and the seed of the measurement, to be stored with a result or a network."""
        return {"images": self.images, "seed": self.seed}


def statistics_note(record: Mapping[str, int | None] | None) -> str:
    """Describe in words which batch-norm statistics were used; ``record`` is None without recalibration."""
    if not record:
        return "batch-norm not recalibrated"
    return f"batch-norm recalibrated on {record['images']:,} training images"


def norms(net: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch-norms that have running statistics, by name."""
    modules = cast(Iterator[tuple[str, nn.Module]], net.named_modules())
    found = {name: module for name, module in modules if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in found.items() if norm.running_mean is not None}


def norms_under(net: PathNet, paths: Paths) -> dict[str, _BatchNorm]:
    """Return the batch-norms that have running statistics and run under ``paths``; unused variants are left out."""
    alive, found = net.wiring.prune(paths), dict[str, _BatchNorm]()
    for path in alive.modules:
        others = net.wiring.variants.get(path, frozenset()) - alive.variants.get(path, frozenset())
        for name, norm in norms(net.get_submodule(path)).items():
            if name.rpartition(".")[2] not in others:
                found[f"{path}.{name}".removesuffix(".")] = norm
    return found


def buffers(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance ``(C,)`` of a norm that has running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


@contextlib.contextmanager
def applied(net: nn.Module, bank: Bank) -> Generator[None]:
    """Use the statistics of one path in ``net`` inside the block; then restore the network's buffers, bit for bit.

    Raises:
        ValueError: a norm in ``bank`` is missing in the network or has another number of channels there.
    """
    known = _matched(net, bank)
    with lent(known.values()):
        for name, norm in known.items():
            (mean, var), (old_mean, old_var) = bank[name], buffers(norm)
            norm.running_mean, norm.running_var = mean.to(old_mean), var.to(old_var)
        yield


@contextlib.contextmanager
def lent(borrowed: Iterable[_BatchNorm]) -> Generator[None]:
    """Restore the buffers, mode and momentum of some batch-norms after the block.

    The block must assign *new* tensors to the buffers, and must not change the original tensors in place.
    """
    kept = [(m, m.running_mean, m.running_var, m.num_batches_tracked, m.training, m.momentum) for m in borrowed]
    try:
        yield
    finally:
        for m, mean, var, count, training, momentum in kept:
            m.running_mean, m.running_var, m.num_batches_tracked = mean, var, count
            m.training, m.momentum = training, momentum


@contextlib.contextmanager
def batch_statistics(modules: Iterable[nn.Module]) -> Generator[None]:
    """Keep batch-norms in training mode from updating their running statistics inside the block. They normalise by the
    batch's statistics, as before; batch-norms in evaluation mode do not change.

    Args:
        modules: modules whose batch-norms are changed, such as ``net.modules()``.
    """
    tracking = [m for m in modules if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for norm in tracking:
            norm.track_running_stats = False
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True


def bake(net: nn.Module, bank: Bank) -> None:
    """Copy the statistics of one path permanently into ``net``, which is usually an extracted network.

    Raises:
        ValueError: as in :func:`applied`.
    """
    with torch.no_grad():
        for name, norm in _matched(net, bank).items():
            for old, new in zip(buffers(norm), bank[name], strict=True):
                old.copy_(new)


def _matched(net: nn.Module, bank: Bank) -> dict[str, _BatchNorm]:
    known = norms(net)
    for name, (mean, _) in bank.items():
        if name not in known:
            raise ValueError(f"the statistics contain batch-norm {name!r}, which this network does not have")
        if mean.shape != (shape := buffers(known[name])[0].shape):
            raise ValueError(
                f"the statistics of norm {name!r} have shape {tuple(mean.shape)}, but the network's have {tuple(shape)}"
            )
    return {name: known[name] for name in bank}
