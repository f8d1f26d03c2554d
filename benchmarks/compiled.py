"""Measures whether ``torch.compile`` is faster: a small DFN-MR at batch sizes 1 and 64, eager or fused, each with and
without compilation."""

from __future__ import annotations

import time
from functools import partial

import torch

import polypath as pp
from benchmarks.harness import by_turns, device, images, show
from benchmarks.switches import _infer

MODEL, BATCHES, SECONDS = "dfn_mr14", (1, 64), 4.0


def run() -> dict:
    return {"model": MODEL, "rows": [row for batch in BATCHES for row in rows(batch, SECONDS)]}


def rows(batch: int, seconds: float) -> list[dict]:
    """Return the times of all forms of the network at one batch size."""
    x = images(batch)
    eager = pp.create_model(MODEL, seed=0).eval().to(device()).to(memory_format=torch.channels_last)
    forms = {"eager, channels-last": eager, "fused": pp.fuse(eager)}
    took = {}
    for name, net in list(forms.items()):
        torch._dynamo.reset()
        begun = time.perf_counter()
        forms[f"{name}, compiled"] = compiled = torch.compile(net, dynamic=False)
        _infer(compiled, x)
        took[f"{name}, compiled"] = time.perf_counter() - begun
    times = by_turns({name: partial(_infer, net, x) for name, net in forms.items()}, seconds)
    found = [{"batch": batch, "form": n, **t, "compile_s": took.get(n)} for n, t in times.items()]
    show(f"{MODEL}, batch {batch}", found, {"form": "", "median_s": ".4f", "compile_s": ".1f"})
    return found
