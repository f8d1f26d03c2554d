"""Stochastic depth in loops that call ``model(x)`` and know no paths, such as timm's ``train.py``.

In training, a call without ``paths`` draws them by the wiring's survival (``drop_path_rate``), once for its batch; in
evaluation, and wherever paths are given, nothing is drawn. torch's own generator on the CPU draws, as for timm's
drop-path, so a seed holds. Recorded graphs (``torch.export``, ``torch.jit.trace``) have the whole network.
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
    """Let the network draw, if it has anything to draw. Copies of it do too; extracted and saved networks do not."""
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
    """timm's module that gives a list of stages' maps, of a path that is drawn in training."""

    def forward(self, x: Tensor) -> list[Tensor]:
        net, indices = cast(PathNet, self.model), cast(list[int], self.out_indices)
        return net.forward_intermediates(x, indices, intermediates_only=True, paths=_drawn(net, x))
