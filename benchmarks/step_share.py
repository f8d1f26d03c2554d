"""Measures whether the time of a training step of a path is in proportion to the path's MACs. All named paths of
crescendonet_128 run alternately, at batch size 64.

The share of a path is its MACs divided by the whole network's. The limit is 1.2 × share + 5% of the time of the whole
network's step.
"""

from __future__ import annotations

from statistics import median

import torch
from torch.nn import functional as F

import polypath as pp
from polypath.profiling.cost import cost
from polypath.profiling.latency import interleaved

MODEL, BATCH, REPEATS, WARMUP = "crescendonet_128", 64, 5, 1


def run() -> dict:
    net = pp.create_model(MODEL, seed=0).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, foreach=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (BATCH,), generator=generator)

    def step(paths: pp.Paths) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x, paths=paths), y).backward()
        optimizer.step()

    named = net.named_paths()
    times = interleaved({name: lambda p=p: step(p) for name, p in named.items()}, REPEATS, WARMUP)
    whole_macs, whole = cost(net).macs, median(times["whole"])
    rows = []
    for name, paths in named.items():
        share, measured = cost(net, paths).macs / whole_macs, median(times[name]) / whole
        limit = 1.2 * share + 0.05
        spread = [min(times[name]) / whole, max(times[name]) / whole]
        rows.append({"paths": name, "share": share, "measured": measured, "spread": spread, "limit": limit})
        print(f"{name:16} share {share:6.3f}  step {measured:6.3f}  limit {limit:6.3f}  {measured <= limit or name}")
    return {
        "model": MODEL,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "whole_step_s": whole,
        "rows": rows,
        "kept": all(row["measured"] <= row["limit"] for row in rows),
    }
