"""Measures ``torch.compile`` on a GPU: :mod:`benchmarks.compiled`, and a training step with and without compilation."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import polypath as pp
from benchmarks import compiled
from benchmarks.gpu.plan import Plan
from benchmarks.harness import Step, by_turns

BATCH = 64


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    found = {f"inference, batch {batch}": partial(_inference, batch, plan.seconds) for batch in (1, plan.batches[-1])}
    return {**found, "training": partial(_training, plan)}


def _inference(batch: int, seconds: float) -> dict[str, Any]:
    return {"model": compiled.MODEL, "rows": compiled.rows(batch, seconds)}


def _training(plan: Plan) -> dict[str, Any]:
    batch = BATCH if plan.cut is None else plan.batches[0]
    torch._dynamo.reset()
    steps = {"eager": Step(pp.create_model(compiled.MODEL, seed=0), batch, "bf16")}
    other = Step(pp.create_model(compiled.MODEL, seed=0), batch, "bf16")
    other.net = torch.compile(other.net)  # pyright: ignore[reportAttributeAccessIssue] (typed as a function)
    begun = time.perf_counter()
    other()
    took = {"compiled": time.perf_counter() - begun}
    times = by_turns({**steps, "compiled": other}, plan.seconds)
    return {"steps": [{"batch": batch, "form": n, **t, "compile_s": took.get(n)} for n, t in times.items()]}
