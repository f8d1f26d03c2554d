"""Measures whether data loading and augmentation are the bottleneck: the loader alone is compared with training steps
on the same batches.

The images are random and of CIFAR-10's size. They are prepared as in the CIFAR recipes (pad by 4 and crop, mirror,
normalise).
"""

from __future__ import annotations

import torch

import polypath as pp
from benchmarks.harness import Step, by_turns, device, show
from polypath.data.config import AugmentConfig
from polypath.data.loader import Batches
from polypath.data.split import Split

BATCH, IMAGES = 64, 2048
MODELS = ("crescendonet_32", "dfn_mr14", "gunn_small", "dfn_mr56")


def run() -> dict:
    draw = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(256, (IMAGES, 3, 32, 32), generator=draw, dtype=torch.uint8),
        torch.randint(10, (IMAGES,), generator=draw),
    )
    options = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "shuffle": True, "device": device(), "channels_last": True}
    batches = Batches(split, BATCH, augment=AugmentConfig(pad=4, mirror=True), **options)
    tasks = {"loader": lambda: [None for _ in batches]}
    rates = {"loader": IMAGES / by_turns(tasks, 5.0)["loader"]["median_s"]}
    steps = by_turns({name: Step(pp.create_model(name, seed=0), BATCH) for name in MODELS}, 12.0, 4)
    rows = []
    for name, time in steps.items():
        rate = BATCH / time["median_s"]
        rows.append({"model": name, "images_per_s": rate, "loader_over_training": rates["loader"] / rate})
    show(f"loader alone: {rates['loader']:.0f} images/s", rows, {
        "model": "", "images_per_s": ".0f", "loader_over_training": ".1f"
    })  # fmt: skip
    return {
        "batch_size": BATCH, "loader_images_per_s": rates["loader"], "rows": rows,
        "kept": all(row["loader_over_training"] >= 5 for row in rows),
    }  # fmt: skip
