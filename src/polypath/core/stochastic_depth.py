"""Stochastic depth (Huang et al. 2016): choose the operands of one training step by the wiring's survival rates."""

from __future__ import annotations

import torch
from torch import Generator

from polypath.core.paths import Paths
from polypath.core.wiring import Join, Wiring


def survives_always(wiring: Wiring) -> bool:
    """Return whether all operands have survival 1, so that no operand is ever dropped."""
    return all(operand.survival == 1.0 for join in wiring.joins.values() for operand in join.operands)


def stochastic_depth(wiring: Wiring, generator: Generator | None = None) -> Paths:
    """Draw a choice that keeps each operand with its ``survival`` probability (Huang et al. 2016, Eq. 1).

    Each join keeps at least one operand. A switch runs its last operand with that operand's survival probability, else
    one of the other operands with equal probability. By default, ``generator`` is torch's global generator on the CPU.

    Raises:
        ValueError: a wiring in which every operand always survives.
    """
    if survives_always(wiring):
        raise ValueError(
            "stochastic depth: every operand of this wiring has survival 1; build the network with lower survival rates"
        )
    joins = [join for join in wiring.joins.values() if any(o.survival < 1.0 for o in join.operands)]
    return Paths.of(wiring, {join.name: _kept(join, generator) for join in joins})


def _kept(join: Join, generator: Generator | None) -> tuple[str, ...]:
    *others, last = join.operands
    if join.kind == "switch":
        if not others or float(torch.rand((), generator=generator)) < last.survival:
            return (last.label,)
        return (others[_uniform(len(others), generator)].label,)
    draws = torch.rand(len(join.operands), generator=generator)
    survivals = torch.tensor([operand.survival for operand in join.operands])
    labels = tuple(join.labels[int(i)] for i in (draws < survivals).nonzero())
    return labels or (join.labels[_uniform(len(join.labels), generator)],)


def _uniform(n: int, generator: Generator | None) -> int:
    return int(torch.randint(n, (), generator=generator))
