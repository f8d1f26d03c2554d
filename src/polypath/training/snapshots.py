"""Snapshot ensembles (Huang et al. 2017): one run whose learning rate falls to zero M times, a network kept each time.

The schedule is ``cyclic-cosine``, :func:`polypath.training.schedules.cycle_ends` says after which epochs a copy is
due, and the members' softmax outputs are averaged. GUNN-24's ensemble has six (GUNN, Table 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polypath.core.probabilities import average_probabilities
from polypath.training.schedules import ScheduleConfig, cycle_ends


def snapshot_due(schedule: ScheduleConfig, epoch: int, epochs: int) -> int | None:
    """The number (from 1) of the snapshot to take after ``epoch`` (from 0), or None where no cycle ends then."""
    ends = cycle_ends(schedule, epochs)
    return ends.index(epoch) + 1 if epoch in ends else None


@torch.no_grad()
def ensemble_probabilities(nets: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Averaged softmax outputs ``(N, classes)`` of several networks on images ``(N, C, H, W)``, run one by one."""
    return average_probabilities(net(x) for net in nets)
