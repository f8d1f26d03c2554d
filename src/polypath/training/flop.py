"""Count the floating-point operations of all forward and backward passes in training, while they run.

The convention is that of papers on training budgets. A MAC is two operations. A backward pass costs as much as two
forward passes. Only convolutions, linear layers and other matrix products count (:mod:`polypath.profiling.cost`).

Each call of the network in training mode and each call of a teacher is counted. A module counts as three forward
passes, or as one if it runs without gradients (``frozen`` modules and teachers). Validation and recalibration are not
counted. Paths that run together (:func:`polypath.core.reuse.in_turn`) do not call the network, so the objective reports
their MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from polypath.core.network import PathNet
from polypath.profiling.cost import PathMacs

PETA = 1e15


class FlopCounter:
    """A counter of the floating-point operations of watched networks in this process, since the last :meth:`take`."""

    def __init__(self) -> None:
        self._flop = 0

    def watch(self, net: PathNet, macs: PathMacs, *, teacher: bool = False) -> None:
        """Count the forward passes of ``net`` in training mode. For a ``teacher``, count all forward passes.

        ``macs`` computes the MACs of a path of ``net``. Create it before the units are compiled or the weights are
        sharded.
        """
        net.register_forward_pre_hook(self._hook(macs, teacher), with_kwargs=True)

    def _hook(self, macs: PathMacs, teacher: bool) -> Callable[..., None]:
        def count(net: PathNet, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if not (net.training or teacher):
                return
            x, paths, *_ = (*args, options.get("paths"))
            total, frozen = macs(paths, (x.shape[-2], x.shape[-1]), options.get("frozen", ()))
            self.add(len(x), total, frozen)

        return count

    def add(self, images: int, macs: int, frozen: int = 0) -> None:
        """Count a pass on ``images`` images. The pass has ``macs`` MACs per image, of which ``frozen`` are in modules
        without gradient."""
        self._flop += 2 * images * (3 * macs - 2 * frozen if torch.is_grad_enabled() else macs)

    def take(self) -> int:
        """Return the count and reset it to 0."""
        taken, self._flop = self._flop, 0
        return taken
