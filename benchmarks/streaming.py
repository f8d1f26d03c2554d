"""Measures speed and memory if worker processes decode the images in every epoch, and if images are kept in memory.

The images are synthetic JPEGs of 200 pixels in one folder per class. They are cropped to 176 pixels with random scale
and aspect. Each setting runs in a separate process, for two sizes of the data set. Memory should grow with this size
only if images are kept in memory. Peak memory is that of the process, plus that of its largest worker times the number
of workers. So pages that workers share count once for each worker.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from polypath.data.batches import training_batches
from polypath.data.config import IMAGENET, DataConfig
from polypath.data.sources import load_images
from polypath.profiling.cores import cores

SIDE, SIZE, BATCH, CLASSES = 200, 176, 50, 10
SETS, WORKERS = (1000, 3000), (0, 1, 2)


def run() -> dict:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in SETS:
            root = Path(folder) / str(images)
            make_images(root, images)
            for workers in (None, *WORKERS):
                command = [sys.executable, "-m", "benchmarks.streaming", str(root), json.dumps(workers)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append({"images": images, **json.loads(done.stdout.splitlines()[-1])})
                print(rows[-1], flush=True)
    return {"side": SIDE, "size": SIZE, "batch_size": BATCH, "cores": cores(), "rows": rows}


def make_images(root: Path, number: int) -> None:
    """Write images of smooth noise as JPEGs. Their size in bytes is that of photographs (about 15 KB)."""
    draw = np.random.default_rng(0)
    for i in range(number + CLASSES):
        folder = root / ("train" if i < number else "test") / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(draw.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)


def measure(root: str, workers: int | None) -> dict:
    """Measure two epochs. If ``workers`` is None, the images are kept in memory."""
    streaming = {"streaming": workers is not None, "workers": workers or 0}
    config = DataConfig(
        source=root, size=SIZE, resize_to=SIDE, augment=IMAGENET, normalise="none", cache=False, **streaming
    )
    begun = time.perf_counter()
    data = load_images(config)
    opened, seconds, checked = time.perf_counter() - begun, [], 0.0
    batches = training_batches(data, config, BATCH, seed=0, device=torch.device("cpu"))
    for epoch in range(2):
        begun = time.perf_counter()
        batches.set_epoch(epoch)
        for x, _ in batches:
            checked += float(x.sum(dtype=torch.float64))
        seconds.append(time.perf_counter() - begun)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches.close()
    del batches
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "workers": workers,
        "kept": "streamed" if streaming["streaming"] else "in memory",
        "open_s": opened,
        "epoch_s": seconds,
        "images_per_s": len(data.train) / seconds[-1],
        "peak_mib": own,
        "peak_worker_mib": child if workers else 0.0,
        "sum_of_pixels": checked,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
