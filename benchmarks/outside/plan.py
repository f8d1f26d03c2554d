"""The training length of each network, chosen so that all methods cost about the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.outside.methods import Method
from benchmarks.outside.networks import Network, pflop_of_unit, pflop_per_second
from polypath.data.sources import ImageData
from polypath.worth.plan import epochs_for

FACTORS = (0.5, 1.0, 2.0)
"""Learning rates to try, as multiples of the network's default."""


@dataclass(frozen=True)
class Planned:
    """The planned training of a network: ``amount`` epochs or steps of ``unit_pflop`` each. A learning rate trial has
    ``trial`` epochs or steps."""

    method: str
    network: Network
    amount: int
    trial: int
    unit_pflop: float

    @property
    def pflop(self) -> float:
        """The PFLOP of one seed, without tuning."""
        return self.amount * self.unit_pflop

    @property
    def tuning_pflop(self) -> float:
        return len(FACTORS) * self.trial * self.unit_pflop

    @property
    def key(self) -> str:
        """The name of the network in results, and of its folder."""
        return f"{self.method}-{self.network.name}" if self.network.name != self.method else self.method


def plan(methods: Mapping[str, Method], pflop: float, trial: float, data: ImageData) -> list[Planned]:
    """Plan the trainings of all methods. For each seed, all trainings of a method together cost about ``pflop``.

    Args:
        trial: length of a learning rate trial as a share of a training. A trial has at least one epoch or ten steps.
    """
    found = []
    for name, method in methods.items():
        units = [pflop_of_unit(network, data) for network in method.networks]
        for network, unit, amount in zip(method.networks, units, epochs_for(pflop, units), strict=True):
            found.append(Planned(name, network, amount, max(network.least, round(trial * amount)), unit))
    return found


def table(planned: Sequence[Planned], pflop: float, seeds: int, data: ImageData) -> list[str]:
    """Return lines that describe the trainings, their cost and their approximate time on this machine."""
    lines = [f"{'':28} {'trained for':>14} {'PFLOP':>9} {'tuning':>9} {'minutes':>9}"]
    total = 0.0
    for one in planned:
        pace = pflop_per_second(one.network, data)
        minutes = (seeds * one.pflop + one.tuning_pflop) / pace / 60
        total += minutes
        amount = f"{one.amount} {one.network.unit}"
        lines.append(f"{one.key:28} {amount:>14} {one.pflop:9.4g} {one.tuning_pflop:9.4g} {minutes:9.1f}")
    for method in dict.fromkeys(one.method for one in planned):
        spent = sum(one.pflop for one in planned if one.method == method)
        off = "" if abs(spent / pflop - 1) <= 0.1 else ", the nearest possible with whole epochs"
        lines.append(f"{method}: {spent:.4g} PFLOP per seed of {pflop:g} requested ({spent / pflop:.0%}){off}")
    lines.append(
        f"{seeds} seed{'s' if seeds > 1 else ''}, {len(FACTORS)} trials per network with the first seed: about "
        f"{total:.0f} minutes of training here, without scoring and timing"
    )
    return lines
