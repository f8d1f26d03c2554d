"""``python -m benchmarks [NAME ...]``: run benchmarks and write their results."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

from polypath.files import write_json
from polypath.training.run import environment

BENCHMARKS = (
    "anytime",
    "bf16",
    "dynamic_steps",
    "exports",
    "step_share",
    "streaming",
    "serve_load",
    "serve_hostile",
)
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for name in names or BENCHMARKS:
        result = importlib.import_module(f"benchmarks.{name}").run()
        write_json(RESULTS / f"{name}.json", {"environment": environment(torch.device("cpu")), **result})
        print(f"wrote {RESULTS / name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
