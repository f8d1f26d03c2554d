"""Weight averaging of a network and its objective's state: exponential (EMA) or stochastic (SWA).

The running batch-norm statistics of a run do not fit its averaged weights. So the statistics can be recalibrated on
training images before the average is evaluated or saved, for every path that a prediction uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from polypath.core.network import PathNet
from polypath.core.recalibrate import recalibrate
from polypath.training.objectives import BoundObjective
from polypath.training.recipe import Recipe


class Average:
    """An average of the weights by ``recipe.ema`` or ``recipe.swa``. ``bound.net`` is the network with this average.

    Args:
        net: the network before the first step, prepared for training but not compiled.
        steps: number of steps in the complete run.

    Raises:
        ValueError: the weights are sharded.
    """

    def __init__(self, recipe: Recipe, net: PathNet, steps: int) -> None:
        from timm.utils.model_ema import ModelEmaV3

        if recipe.parallel.strategy == "fsdp":
            kind = "ema" if recipe.ema else "swa"
            raise ValueError(f"{kind} with parallel.strategy 'fsdp': sharded weights cannot be averaged; use 'ddp'")
        self.decay, self.first = recipe.ema, swa_begins(recipe.swa, steps)
        self._ema = ModelEmaV3(net)
        self.bound = recipe.objective.bind(self._ema.module)

    def update(self, bound: BoundObjective, step: int) -> None:
        """Update the average with the weights and the objective's state after ``step`` (counted from 0)."""
        self._ema.decay = self.decay or 1.0 - swa_weight(self.first, step)
        self._ema.update(bound.net)
        for mine, new in zip(self.bound.state_dict().values(), bound.state_dict().values(), strict=True):
            mine.lerp_(new, 1.0 - self._ema.decay) if mine.is_floating_point() else mine.copy_(new)

    def recalibrate(self, batches: Iterable[Sequence[Tensor]], images: int) -> None:
        """Recalibrate the batch-norm statistics of all paths that a prediction uses, on training ``batches``."""
        self.bound.take_statistics(recalibrate(self.bound.net, self.bound.answers, batches, images))


def swa_begins(share: float, steps: int) -> int:
    """Return the first step (counted from 0) that is averaged, if the last ``share`` of ``steps`` is averaged."""
    return min(steps - 1, steps - round(share * steps))


def swa_weight(first: int, step: int) -> float:
    """Return the factor with which the network after ``step`` enters the running mean. All steps from ``first`` on then
    count equally. Before ``first``, the average is the network itself.
    """
    return 1.0 / max(1, step - first + 1)
