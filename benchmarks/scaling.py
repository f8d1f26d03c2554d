"""Measures whether time and memory per image stay constant as the batch grows, and the speed of two processes.

Two processes with one thread each train with gloo. They are compared with one process with one thread.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from statistics import median

import torch

import polypath as pp
from benchmarks.harness import Step, by_turns, device, held_bytes, images, show
from benchmarks.startup import ROOT

MODEL, BATCHES, SECONDS = "crescendonet_32", (64, 128, 256, 512), 20.0
RANK_BATCH, STEPS = 64, 6


def run() -> dict:
    net = pp.create_model(MODEL, seed=0)
    fused = pp.fuse(pp.create_model(MODEL, seed=0).eval()).to(device())

    def infer(x: torch.Tensor) -> None:
        with torch.inference_mode():
            fused(x)

    inputs = {str(b): images(b) for b in BATCHES}
    inference = by_turns({b: (lambda x=x: infer(x)) for b, x in inputs.items()}, SECONDS)
    training = by_turns({str(b): Step(net, b) for b in BATCHES}, SECONDS, 3)
    held = {str(b): held_bytes(Step(net, b).loss, net) for b in BATCHES}
    rows = [
        {
            "batch": b, "inference_ms_per_image": 1e3 * inference[str(b)]["median_s"] / b,
            "training_ms_per_image": 1e3 * training[str(b)]["median_s"] / b,
            "held_mib_per_image": held[str(b)] / b / 2**20,
        }
        for b in BATCHES
    ]  # fmt: skip
    show(f"{MODEL} by batch size", rows, {"batch": "d", **dict.fromkeys(list(rows[0])[1:], ".3f")})
    spread = {key: max(r[key] for r in rows) / min(r[key] for r in rows) for key in list(rows[0])[1:]}
    result = {
        "model": MODEL,
        "inference": inference,
        "training": training,
        "rows": rows,
        "largest_over_smallest": spread,
    }
    if device().type == "cpu":
        result["processes"] = processes()
        print(f"two processes: {result['processes']['factor']:.2f} times the images/s of one process")
    return result


def processes() -> dict:
    """Measure alternately the images per second of one process with one thread and of two such processes."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for size in rates:
            rates[size].append(_ranks(size))
    one, two = (median(rates[size]) for size in rates)
    return {"images_per_s": {"1": rates[1], "2": rates[2]}, "factor": two / one, "batch_each": RANK_BATCH}


def _ranks(size: int) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling"],
            env=shared | {"WORLD_SIZE": str(size), "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for r in range(size)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("a rank of the two training processes failed; see its error above")
    return float(json.loads(said[0].splitlines()[-1])["images_per_s"])


def one_rank() -> None:
    """Train a few steps as one rank of the process group in the environment. Print images/s of all ranks together."""
    from polypath.training.distributed import join_world, reduce_gradients

    torch.set_num_threads(1)
    world = join_world()
    step = Step(pp.create_model(MODEL, seed=0), RANK_BATCH)
    parameters = list(step.net.parameters())

    def train() -> None:
        step.optimizer.zero_grad(set_to_none=True)
        step.loss().backward()
        reduce_gradients(parameters, world)
        step.optimizer.step()

    train()
    world.any(0)
    begun = time.perf_counter()
    for _ in range(STEPS):
        train()
    world.any(0)
    print(json.dumps({"images_per_s": STEPS * RANK_BATCH * world.size / (time.perf_counter() - begun)}))
    world.close()


if __name__ == "__main__":
    one_rank()
