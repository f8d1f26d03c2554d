"""Snapshot ensembles (Huang et al. 2017): one run whose learning rate falls to zero M times, a network kept each time.

The schedule is ``cyclic-cosine``, :func:`polypath.training.schedules.cycle_ends` says after which epochs a copy is
due, and the members' softmax outputs are averaged. GUNN-24's ensemble has six (GUNN, Table 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from polypath.core.precision import at_least_float32
from polypath.training.schedules import ScheduleConfig, cycle_ends


def snapshot_due(schedule: ScheduleConfig, epoch: int, epochs: int) -> int | None:
    """The number (from 1) of the snapshot to take after ``epoch`` (from 0), or None where no cycle ends then."""
    ends = cycle_ends(schedule, epochs)
    return ends.index(epoch) + 1 if epoch in ends else None


def average_probabilities(logits: Iterable[Tensor]) -> Tensor:
    """Mean of the members' softmax outputs ``(N, classes)``, from their logits, in float32 or float64.

    Raises:
        ValueError: no member.
    """
    total, members = None, 0
    for given in logits:
        p = torch.softmax(at_least_float32(given), dim=1)
        total, members = p if total is None else total + p, members + 1
    if total is None:
        raise ValueError("an ensemble needs at least one member")
    return total / members


@torch.no_grad()
def ensemble_probabilities(nets: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Averaged softmax outputs ``(N, classes)`` of several networks on images ``(N, C, H, W)``, run one by one."""
    return average_probabilities(net(x) for net in nets)
