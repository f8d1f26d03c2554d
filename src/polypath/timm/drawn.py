"""Stochastic depth in training loops that call ``model(x)`` without ``paths``, such as timm's ``train.py``.

In training, a call without ``paths`` draws random paths, the same for its whole batch, with the wiring's survival
probabilities (``drop_path_rate``). In evaluation, or if paths are given, nothing is drawn. The draws use torch's global
generator on the CPU, as timm's drop-path does, so ``torch.manual_seed`` makes them reproducible. Recorded graphs
(``torch.export``, ``torch.jit.trace``) contain the whole network.
"""

from __future__ import annotations

from typing import Any, cast

from timm.models._features import FeatureGetterNet  # timm has no public name for it
from torch import Tensor

from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.recording import exporting, symbolic
from polypath.core.stochastic_depth import stochastic_depth, survives_always


def draw_in_training(net: PathNet) -> None:
    """Make the network draw paths in training, if it has stochastic depth.

    Copies of the network draw paths, too; extracted and saved networks do not.
    """
    if not survives_always(net.wiring):
        net.register_forward_pre_hook(_draw, with_kwargs=True)


def _draw(net: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = len(args) > 1 or kwargs.get("paths") is not None
    return args, kwargs if given else kwargs | {"paths": _drawn(net, args[0] if args else kwargs.get("x"))}


def _drawn(net: PathNet, x: Any) -> Paths | None:
    if net.training and not exporting() and not symbolic(x) and not survives_always(net.wiring):
        return stochastic_depth(net.wiring)
    return None


class DrawnFeatures(FeatureGetterNet):
    """A variant of timm's module that returns the maps of the stages. In training, it runs a randomly drawn path."""

    def forward(self, x: Tensor) -> list[Tensor]:
        net, indices = cast(PathNet, self.model), cast(list[int], self.out_indices)
        return net.forward_intermediates(x, indices, intermediates_only=True, paths=_drawn(net, x))
