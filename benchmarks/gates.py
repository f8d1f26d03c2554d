"""Measures for DRNN the cost of gates relative to their blocks, and whether samples that have stopped cost no time.

Gates are set to pass a fixed share of the samples in each loop: their last layer responds to noise that is derived from
its input. The share of time is measured inside the gates. The difference between the total times with and without gates
would be about as small as their variation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import torch

import polypath as pp
from benchmarks.harness import by_turns, device, images, show, synchronize
from polypath.core import execute as dynamic
from polypath.layers.gates import GateUnit

MODEL, BATCH, SECONDS, TURNS = "dr_resnet74_cifar", 64, 20.0, 25


def run() -> dict:
    net = pp.create_model(MODEL, seed=0).eval().to(device())
    for unit in net.modules():
        if isinstance(unit, GateUnit):
            torch.nn.init.zeros_(unit.last.weight)
            with torch.no_grad():
                unit.last.bias.copy_(torch.tensor([0.0, 1.0]))  # all samples pass
    fused = pp.fuse(net)
    forms = {"eager": net.to(memory_format=torch.channels_last), "fused": fused}
    x = images(BATCH)
    plain = pp.fuse(net, "loops=max")  # the same loops without gates

    def infer(run: torch.nn.Module) -> None:
        with torch.inference_mode():
            run(x)

    tasks = {name: (lambda n=n: infer(n)) for name, n in {**forms, "fused, no gates": plain}.items()}
    times = by_turns(tasks, SECONDS)
    shut = pp.fuse(_shut(net))
    times |= by_turns({"fused, all leave at once": lambda: infer(shut)}, SECONDS / 4)
    rows = [{"way": name, **took} for name, took in times.items()]
    show(f"{MODEL}, batch {BATCH}", rows, {"way": "", "median_s": ".4f", "min_s": ".4f"})
    inside = [_inside(lambda: infer(fused)) for _ in range(TURNS)]
    gates, counted = median(inside), _counted(net)
    print(f"gates: {gates:.1%} of the time of everything else, {counted:.3%} of the MACs of the blocks")
    return {
        "model": MODEL,
        "batch_size": BATCH,
        "rows": rows,
        "gates_share_of_time": gates,
        "gates_share_of_time_least_and_most": [min(inside), max(inside)],
        "gates_share_of_macs": counted,
    }


def _inside(task: Callable[[], None]) -> float:
    """Return the time inside the gates divided by the time of everything else. It includes the decisions and the time
    to wait for them."""
    took, ask = 0.0, dynamic._ask

    def timed(*args: Any) -> Any:
        nonlocal took
        synchronize()
        begun = time.perf_counter()
        answer = ask(*args)
        took += time.perf_counter() - begun
        return answer

    with mock.patch.object(dynamic, "_ask", timed):
        synchronize()
        begun = time.perf_counter()
        task()
        synchronize()
        total = time.perf_counter() - begun
    return took / (total - took)


def _shut(net: pp.PathNet) -> pp.PathNet:
    import copy

    net = copy.deepcopy(net)
    for unit in net.modules():
        if isinstance(unit, GateUnit):
            with torch.no_grad():
                unit.last.bias.copy_(torch.tensor([1.0, 0.0]))
    return net


def _counted(net: pp.PathNet) -> float:
    from polypath.profiling.cost import macs_by_node

    found = macs_by_node(net)
    gates = sum(macs for name, macs in found.items() if ":" in name)
    blocks = sum(macs for name, macs in found.items() if ".unit" in name)
    return gates / blocks
