"""The average of a network in training and of what its objective keeps beside it: exponential, or stochastic (SWA).

An average is of weights. Running batch-norm statistics along a run are those of no average of its networks, so before
it is scored or saved they may be re-estimated, from training images, for every path that its answer runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from polypath.core.network import PathNet
from polypath.core.recalibrate import recalibrate
from polypath.training.objectives import BoundObjective
from polypath.training.recipe import Recipe


class Average:
    """The average of ``recipe.ema`` or ``recipe.swa``; its ``bound`` objective is on a copy of the network.

    Args:
        net: as it begins, in the form in which it trains, not compiled.
        steps: of the whole run.

    Raises:
        ValueError: weights that are sharded.
    """

    def __init__(self, recipe: Recipe, net: PathNet, steps: int) -> None:
        from timm.utils.model_ema import ModelEmaV3

        if recipe.parallel.strategy == "fsdp":
            kind = "ema" if recipe.ema else "swa"
            raise ValueError(
                f"{kind} with parallel.strategy 'fsdp': averages of sharded weights are not kept; take 'ddp'"
            )
        self.decay, self.first = recipe.ema, swa_begins(recipe.swa, steps)
        self._ema = ModelEmaV3(net)
        self.bound = recipe.objective.bind(self._ema.module)

    def update(self, bound: BoundObjective, step: int) -> None:
        """Take in the network and the objective's state as they are after ``step`` (from 0)."""
        self._ema.decay = self.decay or 1.0 - swa_weight(self.first, step)
        self._ema.update(bound.net)
        for mine, new in zip(self.bound.state_dict().values(), bound.state_dict().values(), strict=True):
            mine.lerp_(new, 1.0 - self._ema.decay) if mine.is_floating_point() else mine.copy_(new)

    def recalibrate(self, batches: Iterable[Sequence[Tensor]], images: int) -> None:
        """Re-estimate the statistics of all paths that the answer runs, from ``batches`` of training images."""
        self.bound.take_statistics(recalibrate(self.bound.net, self.bound.answers, batches, images))


def swa_begins(share: float, steps: int) -> int:
    """The first step (from 0) that is averaged, where the last ``share`` of ``steps`` are."""
    return min(steps - 1, steps - round(share * steps))


def swa_weight(first: int, step: int) -> float:
    """What the network after ``step`` weighs in the average, so that all from ``first`` on weigh the same.

    Before ``first`` the average is the network itself.
    """
    return 1.0 / max(1, step - first + 1)
