"""How many floating-point operations training takes: every forward and backward pass, counted as it runs.

The convention of papers on training budgets: a MAC is two operations, a backward pass costs two forwards, and only
convolutions, linear layers and other products of matrices count (:mod:`polypath.profiling.cost`). A pass is a call of
the network in training mode, or of a teacher; it costs three forwards of what is alive in it where gradients are
recorded, and one where they are not, as in modules that it runs ``frozen``. Validation and recalibration are no
training and stand apart. Paths that run as one (:func:`polypath.core.reuse.in_turn`) do not go through the network's
call; a result says their MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from polypath.core.network import PathNet
from polypath.profiling.cost import PathMacs

PETA = 1e15


class FlopCounter:
    """Floating-point operations of the networks that it watches, in this process, since :meth:`take` was called."""

    def __init__(self) -> None:
        self._flop = 0

    def watch(self, net: PathNet, macs: PathMacs, *, teacher: bool = False) -> None:
        """Count the forwards of ``net`` in training mode; of a ``teacher``, all of them.

        ``macs`` are those of ``net``, made before its units were compiled or its weights sharded.
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
        """Count a pass of so many images: the MACs of one, and those of them in modules that run without gradient."""
        self._flop += 2 * images * (3 * macs - 2 * frozen if torch.is_grad_enabled() else macs)

    def take(self) -> int:
        """What has been counted; from here on it counts from 0."""
        taken, self._flop = self._flop, 0
        return taken
