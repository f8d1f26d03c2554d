"""How long each network trains, so that every method costs as nearly as possible the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.outside.methods import Method
from benchmarks.outside.networks import Network, pflop_of_unit, pflop_per_second
from polypath.data.sources import ImageData
from polypath.worth.plan import epochs_for

FACTORS = (0.5, 1.0, 2.0)
"""Learning rates that are tried, in times of the network's own."""


@dataclass(frozen=True)
class Planned:
    """A network's training: ``amount`` epochs or steps of ``unit_pflop`` each; ``trial`` of them to try a rate."""

    method: str
    network: Network
    amount: int
    trial: int
    unit_pflop: float

    @property
    def pflop(self) -> float:
        """Of one seed, tuning apart."""
        return self.amount * self.unit_pflop

    @property
    def tuning_pflop(self) -> float:
        return len(FACTORS) * self.trial * self.unit_pflop

    @property
    def key(self) -> str:
        """Its folder's name, and its name in results."""
        return f"{self.method}-{self.network.name}" if self.network.name != self.method else self.method


def plan(methods: Mapping[str, Method], pflop: float, trial: float, data: ImageData) -> list[Planned]:
    """The trainings of all methods, each method's together of about ``pflop`` a seed.

    Args:
        trial: share of a training that a trial of a learning rate takes, at least one epoch or ten steps.
    """
    found = []
    for name, method in methods.items():
        units = [pflop_of_unit(network, data) for network in method.networks]
        for network, unit, amount in zip(method.networks, units, epochs_for(pflop, units), strict=True):
            found.append(Planned(name, network, amount, max(network.least, round(trial * amount)), unit))
    return found


def table(planned: Sequence[Planned], pflop: float, seeds: int, data: ImageData) -> list[str]:
    """What will be trained, what it costs and about how long that takes here: lines for people."""
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
        off = "" if abs(spent / pflop - 1) <= 0.1 else ", which whole epochs cannot come nearer to"
        lines.append(f"{method}: {spent:.4g} PFLOP a seed of {pflop:g} asked for ({spent / pflop:.0%}){off}")
    lines.append(
        f"{seeds} seed{'s' if seeds > 1 else ''}, {len(FACTORS)} trials a network on the first one: about "
        f"{total:.0f} minutes of training here, scoring and timing apart"
    )
    return lines
