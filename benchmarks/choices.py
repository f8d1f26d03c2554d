"""Measures whether the time of a training step is proportional to the MACs of the drawn path.

A line is fitted to the times of steps under random choices, against the MACs of the alive nodes. Its intercept, as a
share of the time of the whole network's step, is the overhead of random paths.
"""

from __future__ import annotations

from statistics import correlation, linear_regression, median

import torch

import polypath as pp
from benchmarks.harness import Step, device
from polypath.profiling.cost import costs
from polypath.profiling.latency import interleaved
from polypath.training.sampling import local_drop_path

MODEL, BATCH, CHOICES, TURNS = "crescendonet_128", 16, 50, 2


def run() -> dict:
    net = pp.create_model(MODEL, seed=0)
    draw = torch.Generator().manual_seed(0)
    choices: dict[str, pp.Paths] = {"whole": pp.Paths()}
    while len(choices) <= CHOICES:
        paths = local_drop_path(net.wiring, float(torch.rand((), generator=draw)) * 0.8, draw)
        choices[str(paths)] = paths
    macs = {name: cost.macs for name, cost in costs(net, choices).items()}
    step = Step(net, BATCH)
    step()
    tasks = {name: (lambda p=p: step(paths=p)) for name, p in choices.items()}
    times = {name: min(row) for name, row in interleaved(tasks, TURNS, 0, device()).items()}
    xs, ys = [macs[n] for n in choices], [times[n] for n in choices]
    slope, intercept = linear_regression(xs, ys)
    share, r2 = intercept / times["whole"], correlation(xs, ys) ** 2
    print(f"{CHOICES} choices: intercept {share:.1%} of the whole step, R² {r2:.3f}")
    return {
        "model": MODEL, "batch_size": BATCH, "turns": TURNS, "whole_step_s": times["whole"],
        "intercept_share": share, "r_squared": r2, "s_per_gmac": slope * 1e9, "median_step_s": median(ys),
        "rows": [{"paths": name, "macs": macs[name], "min_s": times[name]} for name in choices],
        "kept": abs(share) <= 0.10 and r2 >= 0.95,
    }  # fmt: skip
