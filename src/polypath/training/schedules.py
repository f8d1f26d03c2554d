"""Learning-rate schedules. The learning rate depends only on the settings and the step.

    schedule = Schedule(ScheduleConfig(kind="cosine"), base_lr=0.1, steps_per_epoch=391, epochs=200)
    schedule.at(step)

Steps and epochs are counted from 0. A drop "at epoch 150" happens after 150 complete epochs, before the first step of
epoch 150.

A run extended to N epochs (``resume(run, epochs=N)``) continues with the schedule of an N-epoch run:

* ``constant``, ``step`` with ``every_epochs`` and ``step`` with ``at_epochs`` continue unchanged;
* ``step`` with ``at_fractions`` and ``halving`` drop at fractions of N: if the time of a past drop is now later, the
  drop is undone until then;
* ``one-cycle`` and ``cosine`` continue at the current epoch of the curve for N epochs, so the rate may rise again;
* ``cyclic-cosine`` spreads its ``cycles`` over N epochs. The snapshot of a cycle replaces the earlier snapshot with the
  same number, and other snapshots stay, so the ensemble has ``cycles`` members.

A warm-up is not repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from polypath.core.checks import SHARE, check, check_fields, each, number, one_of, plain_fields, whole

ScheduleKind = Literal["constant", "step", "halving", "one-cycle", "cosine", "cyclic-cosine"]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Settings of the learning-rate schedule.

    Args:
        kind: ``constant``; ``step`` (drops at given times); ``halving`` (a drop each time that half of the remaining
            epochs are over, FractalNet §4.1); ``one-cycle`` (linear up, then linear down, like torch's ``OneCycleLR``
            with linear annealing over one more step, so that no step has rate 0); ``cosine``; ``cyclic-cosine``
            (``cycles`` equal cosines from the base rate to ``final``: Snapshot Ensembles, Huang et al. 2017, Eq. 2).
        at_epochs: for ``step``, the epochs of the drops.
        at_fractions: for ``step``, the times of the drops as fractions of the run.
        every_epochs: for ``step``, the number of epochs between drops.
        factors: factor by which the rate is multiplied at a drop: one number for all drops, or one for each drop.
        drops: for ``halving``, the number of drops.
        peak: for ``one-cycle``, the fraction of the run at which the rate is highest.
        warmup_epochs: number of epochs of linear warm-up from ``start`` (not for ``one-cycle``). The warm-up does not
            shift the other times of the schedule.
        start: rate at the start of a warm-up or a one-cycle, as a share of the base rate.
        final: rate at the end of ``one-cycle``, ``cosine`` and ``cyclic-cosine``, as a share of the base rate.
        cycles: for ``cyclic-cosine``, the number of cycles.

    Raises:
        ValueError: a field is outside its range, the kind of schedule does not use a given time, or the kind needs a
            time that is missing.
    """

    kind: ScheduleKind = "constant"
    at_epochs: tuple[float, ...] = ()
    at_fractions: tuple[float, ...] = ()
    every_epochs: float = 0.0
    factors: tuple[float, ...] = (0.1,)
    drops: int = 4
    peak: float = 0.3
    warmup_epochs: float = 0.0
    start: float = 0.0
    final: float = 0.0
    cycles: int = 1

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(
            self,
            "schedule",
            kind=one_of(*get_args(ScheduleKind)),
            at_epochs=each(number(above=0)),
            at_fractions=each(number(above=0, below=1)),
            every_epochs=number(0),
            factors=each(number(above=0)),
            drops=whole(0),
            peak=SHARE,
            warmup_epochs=number(0),
            start=SHARE,
            final=SHARE,
            cycles=whole(1),
        )
        times = [name for name in ("at_epochs", "at_fractions", "every_epochs") if getattr(self, name)]
        if self.kind == "step" and len(times) != 1:
            raise ValueError(
                f"schedule.kind = 'step' with {' and '.join(times) or 'no times'}: "
                "give exactly one of at_epochs, at_fractions, every_epochs"
            )
        if self.kind != "step" and times:
            raise ValueError(f"schedule.{times[0]} = {getattr(self, times[0])!r}: only schedule.kind 'step' uses it")
        for name in ("at_epochs", "at_fractions"):
            value = getattr(self, name)
            if any(b <= a for a, b in pairwise(value)):
                raise ValueError(f"schedule.{name} = {value!r}: must be in ascending order, without repeats")
        given = len(self.at_epochs or self.at_fractions) or 1
        if len(self.factors) not in (1, given):
            raise ValueError(f"schedule.factors = {self.factors!r}: give one number, or one for each drop")
        if self.warmup_epochs and self.kind == "one-cycle":
            raise ValueError(
                "schedule.warmup_epochs: a one-cycle schedule has no warm-up, since it already rises to schedule.peak"
            )

    def check(self, epochs: float) -> None:
        """Raise ``ValueError`` if drops, warm-up or cycles do not fit into ``epochs`` epochs, or if ``epochs`` is 0 or
        less."""
        check("epochs", epochs, number(above=0))
        if late := [e for e in self.at_epochs if e >= epochs]:
            raise ValueError(
                f"schedule.at_epochs: {late[0]} is not within the run's {epochs} epochs; "
                "change it, or use at_fractions, which scale with the run"
            )
        if self.warmup_epochs > epochs:
            raise ValueError(f"schedule.warmup_epochs = {self.warmup_epochs}: must be at most epochs = {epochs}")
        if self.kind == "cyclic-cosine" and self.cycles > epochs:
            raise ValueError(f"schedule.cycles = {self.cycles}: must be at most epochs = {epochs}")


@dataclass(frozen=True)
class Schedule:
    """The learning rates of all optimiser steps of one run. The settings are checked once, when the object is made.

    Raises:
        ValueError: as for :meth:`ScheduleConfig.check`, or ``steps_per_epoch`` is below 1.
    """

    config: ScheduleConfig
    base_lr: float
    steps_per_epoch: int
    epochs: float

    def __post_init__(self) -> None:
        check("steps_per_epoch", self.steps_per_epoch, whole(1))
        self.config.check(self.epochs)

    def at(self, step: int) -> float:
        """Return the learning rate of ``step`` (counted from 0).

        Raises:
            ValueError: the step is negative.
        """
        check("step", step, whole(0))
        warmup = _warmup(self.config, step, self.steps_per_epoch)
        return self.base_lr * warmup * _share(self.config, step, self.steps_per_epoch, self.epochs)


def lr_at(config: ScheduleConfig, step: int, *, base_lr: float, steps_per_epoch: int, epochs: float) -> float:
    """Return the learning rate of one step. For many steps use :class:`Schedule`, which checks the settings once."""
    return Schedule(config, base_lr, steps_per_epoch, epochs).at(step)


def drop_epochs(config: ScheduleConfig, epochs: float) -> tuple[float, ...]:
    """Return the times of the drops of a ``step`` or ``halving`` schedule, in epochs from the start of the run. Other
    schedules have none."""
    if config.kind == "halving":
        return tuple(epochs * (1.0 - 0.5**n) for n in range(1, config.drops + 1))
    if config.every_epochs:
        return tuple(n * config.every_epochs for n in range(1, math.ceil(epochs / config.every_epochs)))
    return config.at_epochs or tuple(f * epochs for f in config.at_fractions)


def cycle_ends(config: ScheduleConfig, epochs: int) -> tuple[int, ...]:
    """Return the epochs (counted from 0) after which a cycle of a ``cyclic-cosine`` run ends and a snapshot is due.
    The last epoch is one of them.

    A cycle has ceil(epochs / cycles) epochs; the last cycle may be shorter. With other schedules, the run is one cycle.
    """
    length = math.ceil(epochs / config.cycles) if config.kind == "cyclic-cosine" else epochs
    return tuple(sorted({min(end, epochs) - 1 for end in range(length, epochs + length, length)}))


def _warmup(config: ScheduleConfig, step: int, steps_per_epoch: int) -> float:
    steps = round(config.warmup_epochs * steps_per_epoch)
    return 1.0 if step >= steps else config.start + (1.0 - config.start) * (step + 1) / steps


def _share(config: ScheduleConfig, step: int, steps_per_epoch: int, epochs: float) -> float:
    total = max(1, round(epochs * steps_per_epoch))
    match config.kind:
        case "constant":
            return 1.0
        case "step" | "halving":
            past = sum(step >= round(e * steps_per_epoch) for e in drop_epochs(config, epochs))
            factors = config.factors * past if len(config.factors) == 1 else config.factors[:past]
            return math.prod(factors)
        case "one-cycle":
            peak = config.peak * total
            if step < peak:
                return config.start + (1.0 - config.start) * step / peak
            return 1.0 + (config.final - 1.0) * min(1.0, (step - peak) / max(1.0, total - peak))
        case "cosine":
            warm = round(config.warmup_epochs * steps_per_epoch)
            return _cosine(config, max(0, step - warm), max(1, total - warm))
        case "cyclic-cosine":
            length = math.ceil(epochs / config.cycles) * steps_per_epoch
            return _cosine(config, step % length, length)


def _cosine(config: ScheduleConfig, step: int, steps: int) -> float:
    along = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / steps)))
    return config.final + (1.0 - config.final) * along
