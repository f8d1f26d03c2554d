"""Sums of logged values over an epoch. The values stay on the device until they are fetched, so that a step does not
wait for the device."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from polypath.core.precision import at_least_float32
from polypath.training.distributed import World


class Meter:
    """A meter of named scalars. Each scalar is summed over the ranks, and averaged over the steps that added a value.

    Values are summed in the order of steps, in float64. So the averages do not depend on when values are fetched, or on
    whether the run was stopped and resumed in between.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: dict[str, list[tuple[int, Tensor]]] = {}
        self.sums: dict[str, list[float]] = {}

    def add(self, step: int, name: str, value: Tensor) -> None:
        """Add a scalar, which is this rank's share of the step's value. Values with the same step and name are summed.

        NaN means that there was nothing to measure. NaN values are left out, except for ``loss``.
        """
        self.pending.setdefault(name, []).append((step, value.detach()))

    def flush(self) -> list[tuple[int, dict[str, float]]]:
        """Fetch the added values and return them by step. All ranks must call this together."""
        local: dict[int, dict[str, float]] = {}
        for name, pairs in self.pending.items():
            values = torch.stack([at_least_float32(value) for _, value in pairs]).tolist()
            for (step, _), value in zip(pairs, values, strict=True):
                if math.isnan(value) and name != "loss":
                    continue
                row = local.setdefault(step, {})
                row[name] = row.get(name, 0.0) + value
        self.pending = {}
        rows: dict[int, dict[str, float]] = {}
        for part in self.world.gather(local):
            for step, values in part.items():
                row = rows.setdefault(step, {})
                for name, value in values.items():
                    row[name] = row.get(name, 0.0) + value
        for _, row in sorted(rows.items()):
            for name, value in row.items():
                entry = self.sums.setdefault(name, [0.0, 0])
                entry[0] += value
                entry[1] += 1
        return sorted(rows.items())

    def means(self) -> dict[str, float]:
        """Return the averages of the flushed values."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Return the flushed sums, as JSON values."""
        return {name: list(entry) for name, entry in self.sums.items()}

    def load(self, state: dict[str, Any]) -> None:
        self.sums = {name: [float(total), int(count)] for name, (total, count) in state.items()}
        self.pending = {}
