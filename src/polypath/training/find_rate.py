"""Find a learning rate by a short range test (Smith 2017, §3.3): the learning rate rises step by step until the loss
rises too.

found = find_rate(recipe, data)
recipe = replace(recipe, {"optim.lr": found.rate})
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass

from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData
from polypath.training.build import (
    build_net,
    check_fits,
    numerics,
    resolve_device,
    resolve_precision,
    train_batches,
    whiten,
)
from polypath.training.distributed import World
from polypath.training.engine import NONFINITE, Engine
from polypath.training.fit_head import fit_head
from polypath.training.recipe import Recipe, replace
from polypath.training.schedules import Schedule, ScheduleConfig

LOG = logging.getLogger(__name__)
STEPS = 100
LOW, HIGH = 1e-5, 3.0  # range of the rates
SMOOTH = 0.9  # decay of the loss's moving average
RISEN = 3.0  # the sweep ends if the loss exceeds this many times the lowest loss
BELOW = 10.0  # the suggested rate is the rate with the lowest loss divided by this


@dataclass(frozen=True)
class FoundRate:
    """The result of a range test. ``rate`` is a tenth of the learning rate with the lowest smoothed loss; ``rates`` and
    ``losses`` have one value per step."""

    rate: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


class _Sweep(Schedule):
    def at(self, step: int) -> float:
        return LOW * (HIGH / LOW) ** (step / (STEPS - 1))


def with_found_rate(recipe: Recipe, data: ImageData) -> Recipe:
    """Return the recipe with the learning rate that :func:`find_rate` finds. The rate and the reason are logged.

    Raises:
        ValueError: as for :func:`find_rate`.
    """
    found = find_rate(recipe, data)
    why = f"a tenth of the rate with the lowest loss, in a sweep of {len(found.rates)} steps over learning rates"
    LOG.info("optim.lr = %s: %s", found.rate, why)
    changed = replace(recipe, {"optim.lr": found.rate})
    return dataclasses.replace(changed, assumed={**recipe.assumed, "optim.lr": why})


def find_rate(recipe: Recipe, data: ImageData) -> FoundRate:
    """Find a value for ``optim.lr`` by a sweep of at most ``STEPS`` steps on the training images. The weights of the
    sweep are discarded. The same recipe and images give the same rate.

    Raises:
        ValueError: the recipe cannot be trained, or the loss is not finite from the first steps on.
    """
    device, world = resolve_device(recipe.device), World()
    recipe = replace(recipe, {"precision": resolve_precision(recipe.precision, device), "frozen_epochs": 0})
    net = build_net(recipe, classes=data.classes)
    check_fits(net, data)
    whiten(net, recipe, data, world)
    fit_head(net, recipe, data, device, world)
    batches = train_batches(data, recipe, device, world)
    engine = Engine(recipe, net, device, world, len(batches))
    engine.schedule = _Sweep(ScheduleConfig(), 1.0, len(batches), recipe.epochs)
    rates: list[float] = []
    losses: list[float] = []
    try:
        with numerics(device, recipe.deterministic):
            _sweep(engine, batches, rates, losses)
    finally:
        batches.close()
    if len(losses) < 2:
        raise ValueError("the loss is not finite even at the lowest learning rates of the sweep: set --optim.lr")
    best = rates[losses.index(min(losses))] / BELOW
    times = recipe.optim.base_rate(recipe.batch_size) / recipe.optim.lr if recipe.optim.lr else 1.0
    return FoundRate(float(f"{best / times:.2g}"), tuple(rates), tuple(losses))


def _sweep(engine: Engine, batches: BatchesBase, rates: list[float], losses: list[float]) -> None:
    smooth, epoch = 0.0, 0
    while len(rates) < STEPS:
        engine.start_epoch(epoch)
        batches.set_epoch(epoch)
        for x, y in batches:
            step = len(rates)
            flag = engine.step([(0, x, y)], len(y), epoch, step)
            loss = sum(values["loss"] for _, values in engine.meter.flush())
            if flag == NONFINITE or not math.isfinite(loss):
                return
            smooth = SMOOTH * smooth + (1 - SMOOTH) * loss
            rates.append(engine.schedule.at(step))
            losses.append(smooth / (1 - SMOOTH ** (step + 1)))
            if losses[-1] > RISEN * min(losses) or len(rates) == STEPS:
                return
        epoch += 1
