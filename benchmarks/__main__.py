"""``python -m benchmarks [NAME ...]``: run benchmarks and write their results.

``python -m benchmarks ablate RECIPE ...`` compares techniques of training (:mod:`benchmarks.ablate`).
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import device, precisions
from polypath.cli.memory import keep_freed_memory
from polypath.storage.files import write_json
from polypath.training.run import environment

BENCHMARKS = (
    "startup", "roof", "training", "inference", "gunn", "choices", "step_share", "scaling", "feeding", "gates",
    "switches",
)  # fmt: skip
MORE = (  # run by name only
    "compiled", "anytime", "bf16", "bundle_latency", "dynamic_steps", "exports", "streaming", "serve_load",
    "serve_hostile", "training_bf16", "first_answer", "gunn_speed", "attacks", "hostile_files", "deadline", "reuse",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    if names[:1] == ["ablate"]:
        return _prepared(lambda: importlib.import_module("benchmarks.ablate").main(names[1:]))
    if unknown := [name for name in names if name not in BENCHMARKS + MORE]:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS + MORE)}", file=sys.stderr)
        return 2
    return _prepared(lambda: _run(names))


def _prepared(act: Callable[[], int]) -> int:
    """What ``act`` gives, with logging and memory as the commands have them."""
    RESULTS.mkdir(exist_ok=True)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("polypath").setLevel(logging.INFO)
    keep_freed_memory()
    return act()


def _run(names: list[str]) -> int:
    if set(names) <= set(BENCHMARKS):
        for precision, reason in precisions().items():
            print(f"{precision}: {reason or 'measured'}")
    for name in names or BENCHMARKS:
        begun = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").run()
        took = round(time.perf_counter() - begun, 1)
        write_json(RESULTS / f"{name}.json", {"environment": environment(device()), "took_s": took, **result})
        print(f"wrote {RESULTS / name}.json after {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
