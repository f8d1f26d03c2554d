"""Every training technique as a plain function, for your own training loop.

    net, g = pp.create_model("crescendonet_32", seed=0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches:
        loss = F.cross_entropy(net(x, paths=local_drop_path(net.wiring, 0.3, g)), y)
        optimizer.zero_grad(), loss.backward(), optimizer.step()

The objectives in :mod:`polypath.training.path_objectives` call the same functions, with settings from a recipe.
"""

from __future__ import annotations

from polypath.core.batchnorm import batch_statistics
from polypath.core.probabilities import average_probabilities
from polypath.training.distill import alpha_divergence_loss, distillation_loss
from polypath.training.gates import gate_rates, target_rate_loss
from polypath.training.pathwise import (
    active_branch,
    branches,
    frozen_modules,
    learning_parameters,
    path_wise_forward,
    release,
    without_gradient,
)
from polypath.training.sampling import (
    columns_of,
    global_drop_path,
    in_groups,
    joined,
    local_drop_path,
    mixed_drop_path,
    one_column_a_block,
    sandwich,
    shallowest,
    stochastic_depth,
    survivors,
    uniform_choice,
)
from polypath.training.schedules import ScheduleConfig, cycle_ends, drop_epochs, lr_at
from polypath.training.snapshots import ensemble_probabilities, snapshot_due

__all__ = [
    "ScheduleConfig",
    "active_branch",
    "alpha_divergence_loss",
    "average_probabilities",
    "batch_statistics",
    "branches",
    "columns_of",
    "cycle_ends",
    "distillation_loss",
    "drop_epochs",
    "ensemble_probabilities",
    "frozen_modules",
    "gate_rates",
    "global_drop_path",
    "in_groups",
    "joined",
    "learning_parameters",
    "local_drop_path",
    "lr_at",
    "mixed_drop_path",
    "one_column_a_block",
    "path_wise_forward",
    "release",
    "sandwich",
    "shallowest",
    "snapshot_due",
    "stochastic_depth",
    "survivors",
    "target_rate_loss",
    "uniform_choice",
    "without_gradient",
]
