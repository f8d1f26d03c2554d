"""Snapshot ensembles (Huang et al. 2017): in one run the learning rate falls to zero M times, and each time the network
is saved.

The schedule is ``cyclic-cosine``. :func:`polypath.training.schedules.cycle_ends` returns the epochs after which a
snapshot is due. The members' softmax outputs are averaged. GUNN-24's ensemble has six members (GUNN, Table 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polypath.core.probabilities import average_probabilities
from polypath.training.schedules import ScheduleConfig, cycle_ends


def snapshot_due(schedule: ScheduleConfig, epoch: int, epochs: int) -> int | None:
    """Return the number of the snapshot to take after ``epoch``, or None if no cycle ends there. Snapshots are counted
    from 1, epochs from 0."""
    ends = cycle_ends(schedule, epochs)
    return ends.index(epoch) + 1 if epoch in ends else None


@torch.no_grad()
def ensemble_probabilities(nets: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Average the softmax outputs of several networks, ``(N, classes)``, on images ``(N, C, H, W)``. The networks run
    one by one."""
    return average_probabilities(net(x) for net in nets)
