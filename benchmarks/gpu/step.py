"""Runs one step of ``make gpu`` in a separate process: ``python3 -m benchmarks.gpu.step NAME --out FILE``.

The step ``look`` only checks that the packages and the GPU are there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from pathlib import Path

MODULES = {
    "gpu_tests": "suite",
    "gpu_equality": "equality",
    "gpu_runtimes": "runtimes",
    "inference": "inference",
    "training": "training",
    "gpu_epochs": "epochs",
    "gpu_compiled": "compiled",
}
WITHOUT = "torch finds no CUDA device on this machine; `make gpu-rehearse` runs every step on the processor"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["look", *MODULES])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args(argv)
    try:
        import torch

        from benchmarks.gpu.parts import measure, with_pack
        from benchmarks.gpu.plan import plan
        from benchmarks.gpu.pretended import pretended
        from polypath.training.run import environment
    except ImportError as error:
        print(f"{error}; `make gpu-pack` writes a folder with packages that a GPU machine may lack", file=sys.stderr)
        return 2
    if not args.rehearse and not torch.cuda.is_available():
        print(WITHOUT, file=sys.stderr)
        return 2
    if args.name == "look":
        return 0
    with pretended() if args.rehearse else contextlib.nullcontext():
        module = importlib.import_module(f"benchmarks.gpu.{MODULES[args.name]}")
        parts = module.parts(plan(args.rehearse, args.images))
        return int(not measure(args.out, parts, with_pack(environment(torch.device("cuda")))))


if __name__ == "__main__":
    sys.exit(main())
