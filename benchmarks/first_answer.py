"""Measures whether the first answer of a process is in time. Processes of ``polypath predict photo.jpg --budget-ms 5``
are started one after the other, with a profile that an earlier process has stored.

The photo has 640x480 pixels: smooth colours with some noise, with the file size of a photo. An answer is in time if its
``ms``, the time from the call with the file name to the answer, is within the budget. A refusal is not in time. The
profile is stored in a separate cache. ``POLYPATH_BENCH_FIRST`` is the number of processes, 200 by default.

The result of each process is kept in ``results/first_answer/`` until all processes have run, so a stopped benchmark can
be resumed. From the recorded times follow, for any budget, the path that each process would have chosen and its time.
The smallest budget that 99 of 100 processes meet on this machine is computed from these.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polypath.profiling.cores import cores
from polypath.training.run import revision

NUMBER = int(os.environ.get("POLYPATH_BENCH_FIRST", "200"))
BUDGET_MS, PROFILE_S = 5.0, 3.0
WIDTH, HEIGHT, QUALITY = 640, 480, 85
LIMIT = 0.99
PARTS = Path(__file__).parent / "results" / "first_answer"
ROOT = Path(__file__).parents[1]
Row = Mapping[str, Any]


def run() -> dict:
    begun = {"revision": revision(), "cores": cores(), "photo": [WIDTH, HEIGHT, QUALITY], "budget_ms": BUDGET_MS}
    rows = recorded(PARTS, begun, NUMBER, predict)
    size = (PARTS / "photo.jpg").stat().st_size
    shutil.rmtree(PARTS)
    return {"photo": {"width": WIDTH, "height": HEIGHT, "bytes": size}, "cores": cores(), **counted(rows)}


def recorded(folder: Path, facts: Row, number: int, predict: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of ``number`` processes. Stored results in ``folder`` with the same ``facts`` are reused."""
    file = folder / "rows.jsonl"
    text = file.read_text() if file.is_file() else ""
    known = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last line may be incomplete
    environment = os.environ | {"POLYPATH_CACHE": str(folder / "cache")}
    photo = folder / "photo.jpg"
    if known[:1] != [dict(facts)]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_photo(photo)
        predict(photo, environment, "--profile", f"{PROFILE_S:g}")  # this process stores the profile
        known = [dict(facts)]
    rows = known[1:]
    file.write_text("".join(json.dumps(line) + "\n" for line in known))
    with file.open("a") as stream:
        while len(rows) < number:
            rows.append(predict(photo, environment, "--budget-ms", f"{BUDGET_MS:g}"))
            stream.write(json.dumps(rows[-1]) + "\n")
            stream.flush()
            if len(rows) % 10 == 0 or len(rows) == number:
                print(f"{len(rows)} of {number} processes, {sum(map(in_time, rows))} in time", file=sys.stderr)
    return rows[:number]


def write_photo(file: Path) -> None:
    """Write a JPEG image of smooth random colours with a little noise."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)
    noisy = smooth + rng.normal(0.0, 8.0, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=QUALITY)


def predict(photo: Path, environment: dict[str, str], *options: str) -> dict[str, Any]:
    """Run a process and return its answer (its line of JSON, or ``error``), with a breakdown of its time."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.first_process", str(photo), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    *said, where = done.stdout.splitlines()
    row = json.loads((said or done.stderr.splitlines())[-1])
    return row | json.loads(where) | {"process_s": time.perf_counter() - begun}


# --- results -------------------------------------------------------------------------------------------------


def in_time(row: Row) -> bool:
    return row.get("ms", math.inf) <= BUDGET_MS


def kept_from(row: Row) -> float:
    """Return the smallest budget with which a process would have answered in time.

    The process would have chosen the most accurate path that fits the remaining time. The time of a path is estimated
    as the measured time of the path that ran, scaled by the ratio of both paths' medians."""
    typical = row["typical_ms"]
    slowness = row["path_ms"] / typical[row["path"]] if "path" in row else 1.0
    least = better = math.inf  # remaining milliseconds needed for an answer in time, and for a more accurate path
    for name, needs in row["needs_ms"].items():
        took = slowness * typical[name]
        if needs < better and took < better:
            least = max(needs, took)
        if took > needs:
            break
        better = min(better, needs)
    return row["begun_ms"] + least


def smallest_budget(rows: Sequence[Row]) -> dict[str, float] | None:
    """Return the smallest budget with which a share :data:`LIMIT` of the processes would be in time. Return None if a
    process refused the request before it read the image."""
    if not all("begun_ms" in row for row in rows):
        return None
    budgets = sorted(map(kept_from, rows))
    found = budgets[math.ceil(LIMIT * len(rows)) - 1]
    return {"budget_ms": found, "share": sum(budget <= found for budget in budgets) / len(rows)}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    return {name: float(np.quantile(values, share)) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def counted(rows: Sequence[Row]) -> dict[str, Any]:
    """Count how many processes were in time, late or refused, and summarise their times."""
    answered = [row for row in rows if "ms" in row]
    good = sum(map(in_time, rows))
    waited = [row["ms"] - row["decoding_ms"] - row["path_ms"] for row in answered]
    waited += [row["begun_ms"] - row["decoding_ms"] for row in rows if "ms" not in row and "begun_ms" in row]
    times = {
        "decoding_ms": [row["decoding_ms"] for row in rows if "decoding_ms" in row],
        "waiting_ms": waited,
        "path_ms": [row["path_ms"] for row in answered],
        "answer_ms": [row["ms"] for row in answered],
        "process_s": [row["process_s"] for row in rows],
        "process_cpu_s": [row["cpu_s"] for row in rows],
    }
    print(f"{good} of {len(rows)} in time, {len(answered) - good} late, {len(rows) - len(answered)} refused")
    return {
        "processes": len(rows),
        "runtime": dict(Counter(row["runtime"] for row in answered)),
        "budget_ms": BUDGET_MS,
        "in_time": good,
        "late": len(answered) - good,
        "refused": len(rows) - len(answered),
        "share": good / len(rows),
        "paths": dict(Counter(row["path"] for row in answered).most_common()),
        "errors": dict(Counter(row["error"] for row in rows if "error" in row).most_common(10)),
        **{name: quantiles(values) for name, values in times.items() if values},
        "limit": LIMIT,
        "kept": good >= LIMIT * len(rows),
        "smallest": smallest_budget(rows),
    }
