"""Measures on a GPU (``make gpu``): tests, equality with the CPU, speed, runtimes, epochs of published recipes.

    python3 -m benchmarks.gpu --pack gpu-pack
    python3 -m benchmarks.gpu --rehearse        # each step in tiny form, on a processor that stands in for a GPU

The command needs a Python with torch, the checkout, and the folder written by ``make gpu-pack``. Each step is a process
with a time limit and a separate result file, which it writes part by part. A part that was measured with this revision,
torch and GPU is not measured again, so a stopped run resumes. If a step fails, this is reported, and the next step
runs. The exit status is 0 if all results are there, 1 if a step failed or a result is missing, and 2 for bad input.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = {  # limits in seconds: 9 minutes in all
    "gpu_tests": 60,
    "gpu_equality": 50,
    "gpu_runtimes": 50,
    "inference": 110,
    "training": 110,
    "gpu_epochs": 100,
    "gpu_compiled": 60,
}
SECONDS = 540.0
REHEARSED = 10  # factor on the limits: a processor is slower than a GPU
RESULTS = {False: ROOT / "benchmarks/results/cuda", True: ROOT / "runs/gpu-rehearsal"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", help=f"steps to run, of {', '.join(STEPS)} (default: all)")
    parser.add_argument(
        "--pack", type=Path, default=ROOT / "gpu-pack", help="folder written by `make gpu-pack` (gpu-pack)"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results/cuda)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of all steps together (540)")
    parser.add_argument(
        "--rehearse", action="store_true", help="run tiny steps without a GPU; write to runs/gpu-rehearsal"
    )
    args = parser.parse_args(argv)
    if unknown := [name for name in args.steps if name not in STEPS]:
        print(f"unknown step {unknown[0]!r}: must be one of {', '.join(STEPS)}", file=sys.stderr)
        return 2
    if not args.seconds > 0:
        print(f"--seconds = {args.seconds:g}: must be above 0", file=sys.stderr)
        return 2
    out = args.out or RESULTS[args.rehearse]
    times = REHEARSED if args.rehearse else 1
    until = time.monotonic() + args.seconds * times
    with tempfile.TemporaryDirectory() as place:
        environment = _environment(args.pack, Path(place))
        more = ["--rehearse"] * args.rehearse
        if images := sorted(args.pack.glob("cifar10/data/*.parquet")):
            more += ["--images", str(images[0].parents[1])]
        if _process([*_COMMAND, "look", *more], environment, until - time.monotonic()):
            return 2
        out.mkdir(parents=True, exist_ok=True)
        states = {}
        for name in args.steps or STEPS:
            left = until - time.monotonic()
            begun = time.monotonic()
            command = [*_COMMAND, name, "--out", str(out / f"{name}.json"), *more]
            status = _process(command, environment, min(left, times * STEPS[name])) if left > 0 else None
            states[name] = _STATES.get(status, f"failed (status {status})")
            print(f"{name}: {states[name]} after {time.monotonic() - begun:.0f} s", flush=True)
    print("\n".join(f"{name:14} {state}" for name, state in states.items()))
    return int(set(states.values()) != {_STATES[0]})


_COMMAND = [sys.executable, "-m", "benchmarks.gpu.step"]
_STOPPED = -1
_STATES = {
    0: "complete",
    1: "failed in part, see above",
    _STOPPED: "stopped at its limit",
    None: "not started: no time",
}


def _environment(pack: Path, place: Path) -> dict[str, str]:
    """Return the environment of the steps' processes. The packages of the pack are unpacked into ``place``. They are
    preferred to the packages of this Python."""
    for wheel in sorted(pack.glob("wheels/*.whl")):
        with zipfile.ZipFile(wheel) as files:
            files.extractall(place)
    folders = [ROOT / "src", place, ROOT, ROOT / "tests"]
    revision = pack / "revision.txt"
    told = {"POLYPATH_PACKED": revision.read_text().strip()} if revision.is_file() else {}
    return {**os.environ, **told, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONUNBUFFERED": "1"}


def _process(command: list[str], environment: dict[str, str], seconds: float) -> int:
    """Run a command in a separate process group. Return its status, or ``_STOPPED`` if it reached the time limit."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return _STOPPED
    finally:  # also if this process is stopped
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; run the same command to resume", file=sys.stderr)
        sys.exit(130)
