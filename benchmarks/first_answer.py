"""Is the first answer of a process in time? Fresh processes of ``polypath predict photo.jpg --budget-ms 5``, one after
the other, with a profile that an earlier process has stored.

The photo has 640x480 pixels: smooth colours with some noise, as large as a photo's file. In time is an answer whose
``ms``, from the call with the file's name to the answer, is within the budget; a refusal is none. The profile is made
in a cache of its own. ``POLYPATH_BENCH_FIRST`` is the number of processes, 200 by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polypath.profiling.cores import cores

NUMBER = int(os.environ.get("POLYPATH_BENCH_FIRST", "200"))
BUDGET_MS, PROFILE_S = 5.0, 3.0
WIDTH, HEIGHT, QUALITY = 640, 480, 85
LIMIT = 0.99


def run() -> dict:
    with tempfile.TemporaryDirectory() as place:
        photo = Path(place) / "photo.jpg"
        write_photo(photo)
        environment = os.environ | {"POLYPATH_CACHE": str(Path(place) / "cache")}
        profiled = predict(photo, environment, "--profile", f"{PROFILE_S:g}")  # what seconds find is stored
        rows = []
        for _ in range(NUMBER):
            begun = time.perf_counter()
            rows.append(predict(photo, environment, "--budget-ms", f"{BUDGET_MS:g}"))
            rows[-1]["process_s"] = time.perf_counter() - begun
        size = photo.stat().st_size
    return {
        "photo": {"width": WIDTH, "height": HEIGHT, "bytes": size},
        "cores": cores(),
        "runtime": profiled.get("runtime"),
        **counted(rows),
    }


def write_photo(file: Path) -> None:
    """Smooth random colours with a little noise, as JPEG."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)
    noisy = smooth + rng.normal(0.0, 8.0, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=QUALITY)


def predict(photo: Path, environment: dict[str, str], *options: str) -> dict[str, Any]:
    """What a process answers: its line of JSON, or ``error``."""
    command = [sys.executable, "-m", "polypath", "predict", str(photo), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return json.loads(said[-1])


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of these were in time, late and refused, and how long they took."""
    answered = [row["ms"] for row in rows if "ms" in row]
    in_time = sum(ms <= BUDGET_MS for ms in answered)
    found: dict[str, Any] = {
        "processes": len(rows),
        "budget_ms": BUDGET_MS,
        "in_time": in_time,
        "late": len(answered) - in_time,
        "refused": len(rows) - len(answered),
        "share": in_time / len(rows),
        "paths": dict(Counter(row["path"] for row in rows if "path" in row).most_common()),
        "errors": dict(Counter(row["error"] for row in rows if "error" in row).most_common(10)),
        "process_p50_s": float(np.median([row["process_s"] for row in rows])),
        "limit": LIMIT,
        "kept": in_time >= LIMIT * len(rows),
    }
    if answered:
        found |= {f"p{q}_ms": float(np.percentile(answered, q)) for q in (50, 95, 99)} | {"max_ms": max(answered)}
    print(f"{in_time} of {len(rows)} in time, {found['late']} late, {found['refused']} refused")
    return found
