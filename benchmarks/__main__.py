"""Runs benchmarks and writes their results (``python -m benchmarks [NAME ...]``).

``python -m benchmarks ablate RECIPE ...`` compares training techniques (:mod:`benchmarks.ablate`).
``outside OPTIONS`` trains alternatives to paths (:mod:`benchmarks.outside`). ``own_pictures`` trains on generated
folders of images (:mod:`benchmarks.own_pictures`). ``efficientnet_lite0`` fine-tunes a network with ImageNet's weights,
first as it is and then with skips (:mod:`benchmarks.efficientnet_lite0`). ``--help`` lists the options of these four.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time

from benchmarks.harness import device, precisions
from benchmarks.kinds import folder
from polypath.cli.memory import keep_freed_memory
from polypath.storage.files import write_json
from polypath.training.run import environment

BENCHMARKS = (
    "startup", "roof", "training", "inference", "gunn", "choices", "step_share", "scaling", "feeding", "gates",
    "switches",
)  # fmt: skip
MORE = (  # these run only if named
    "compiled", "anytime", "bf16", "bundle_latency", "dynamic_steps", "exports", "streaming", "serve_load",
    "serve_hostile", "training_bf16", "first_answer", "gunn_speed", "attacks", "hostile_files", "deadline", "reuse",
    "refusals", "quick", "small_devices", "turns", "int8_front",
)  # fmt: skip
WITH_OPTIONS = ("ablate", "outside", "own_pictures", "efficientnet_lite0")  # these run only if named, one at a time


def main(names: list[str]) -> int:
    alone = bool(names) and names[0] in WITH_OPTIONS
    if unknown := [name for name in names if name not in BENCHMARKS + MORE and not alone]:
        print(f"unknown benchmark {unknown[0]!r}: must be one of {', '.join(BENCHMARKS + MORE)}", file=sys.stderr)
        print(f"or, alone and with its own options, one of {', '.join(WITH_OPTIONS)}", file=sys.stderr)
        return 2
    folder().mkdir(parents=True, exist_ok=True)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("polypath").setLevel(logging.INFO)
    keep_freed_memory()  # as polypath's commands do
    if alone:
        return with_options(names[0], names[1:])
    if set(names) <= set(BENCHMARKS):
        for precision, reason in precisions().items():
            print(f"{precision}: {reason or 'measured'}")
    for name in names or BENCHMARKS:
        begun = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").run()
        _write(name, result, begun)
        if result.get("slower"):
            return 1
    return 0


def with_options(name: str, options: list[str]) -> int:
    """Run a benchmark that has options. Return the exit status."""
    module, begun = importlib.import_module(f"benchmarks.{name}"), time.perf_counter()
    if name == "ablate":  # ablate writes its result after each run
        return module.main(options)
    try:
        result = module.run(options)
    except (ValueError, ImportError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(stopped, file=sys.stderr)
        return 130
    if result is not None:
        _write(name, result, begun, command=False)  # the command may contain local paths
    return 0


def _write(name: str, result: dict, begun: float, *, command: bool = True) -> None:
    took = round(time.perf_counter() - begun, 1)
    here = {key: value for key, value in environment(device()).items() if command or key != "command"}
    file = folder() / f"{name}.json"
    write_json(file, {"environment": here, "took_s": took, **result})
    print(f"wrote {file} after {took:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
