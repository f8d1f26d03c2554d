"""Measures training steps of every family and its peers in float32 and bf16: a shorter :mod:`benchmarks.training`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import training
from benchmarks.gpu.plan import Plan
from benchmarks.harness import DTYPES, precisions
from benchmarks.models import MODELS


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    MODELS.update({name: plan.model(name) for name in MODELS})  # the rehearsal measures tiny networks
    groups = [group for group in training.groups() if len(group) > 1]
    return {
        f"{group[-1]}, batch {batch}, {precision}": partial(_group, group, batch, precision, plan.seconds)
        for precision in DTYPES
        for batch in plan.batches
        for group in groups
    }


def _group(group: list[str], batch: int, precision: str, seconds: float) -> dict[str, Any]:
    rows, ratios = training.compare(group, batch, precision, seconds)
    return {"precisions": precisions(), "rows": rows, "ratios": ratios}
