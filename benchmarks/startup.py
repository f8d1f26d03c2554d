"""Measures the startup: the time of ``import polypath`` with its networks relative to ``import torch``, and the memory
of processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TURNS = 5
NETWORKS = "import polypath, with networks"
PROGRAMS = {
    "python": "pass",
    "import torch": "import torch",
    "import polypath": "import polypath",
    NETWORKS: "import polypath; polypath.create_model",
}
SAY = """
import os, resource
if os.path.exists("/proc/self/status"):  # what getrusage says there may be the process before exec
    print(*[int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM")])
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
ROOT = Path(__file__).parents[1]


def resident(program: str) -> int:
    """Return the peak resident size, in bytes, of a process that runs ``program``."""
    done = subprocess.run([sys.executable, "-c", program + SAY], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout.split()[-1])


def run() -> dict:
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(TURNS + 1):
        for name, program in PROGRAMS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
            if turn:  # the first turn, which fills the file cache, is not measured
                times[name].append(time.perf_counter() - begun)
    seconds = {name: {"median_s": median(row), "min_s": min(row), "max_s": max(row)} for name, row in times.items()}
    infer = "import torch, polypath as pp\nnet = pp.fuse(pp.create_model('{}').eval())\nnet(torch.randn(64, 3, 32, 32))"
    memory = {name: resident(program) for name, program in PROGRAMS.items()}
    memory |= {f"infer {name}, batch 64": resident(infer.format(name)) for name in ("crescendonet_128", "dfn_mr56")}
    ratio = seconds[NETWORKS]["median_s"] / seconds["import torch"]["median_s"]
    print(f"{NETWORKS}, takes {ratio:.2f} times as long as import torch")
    for name, size in memory.items():
        print(f"{name}: {size / 2**20:.0f} MiB")
    return {"turns": TURNS, "seconds": seconds, "import_ratio": ratio, "resident_bytes": memory, "kept": ratio <= 1.3}
