"""Measures inference of every family and its peers, also as CUDA graphs: a shorter :mod:`benchmarks.inference`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import inference
from benchmarks.gpu.plan import Plan
from benchmarks.harness import DTYPES, precisions
from benchmarks.models import MODELS


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    MODELS.update({name: plan.model(name) for name in MODELS})  # the rehearsal measures tiny networks
    rivals = {model.rival for model in MODELS.values()}
    names = [name for name, model in MODELS.items() if model.whose == "ours" or name in rivals]
    return {
        f"{name}, batch {batch}, {precision}": partial(_one, name, batch, precision, plan.seconds / 4)
        for precision in DTYPES
        for batch in (1, plan.batches[-1])
        for name in names
    }


def _one(name: str, batch: int, precision: str, seconds: float) -> dict[str, Any]:
    return {"precisions": precisions(), "rows": inference.measure(name, batch, precision, seconds)}
