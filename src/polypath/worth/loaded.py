"""Measures, in a new process, how much memory all paths of some bundles take in a runtime.

``python -m polypath.worth.loaded RUNTIME BUNDLE ...`` prints MiB as JSON, or null if the system does not report memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from polypath.deploy import check
from polypath.deploy.bundle import Bundle
from polypath.deploy.runtimes import open_runtime

STATM = Path("/proc/self/statm")


def memory_loaded(runtime: str, bundles: Sequence[Path]) -> float | None:
    """Return by how many MiB a new process grows when it loads all paths of ``bundles`` and runs each on one image.

    Raises:
        RuntimeError: the process failed. The message is the last line of its output.
    """
    command = [sys.executable, "-m", __name__, runtime, *map(str, bundles)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def resident() -> float | None:
    """Return how many MiB of memory this process uses, or None if the system does not report it."""
    if not STATM.is_file():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    runtime, *folders = sys.argv[1:]
    bundles = [Bundle.open(folder) for folder in folders]
    first = bundles[0]
    _answer(runtime, first, first.paths[:1])  # loads the runtime's libraries, whose memory is not counted
    before = resident()
    kept = [_answer(runtime, bundle, bundle.paths) for bundle in bundles]
    after = resident()
    assert kept
    print(json.dumps(None if before is None or after is None else round(after - before, 3)))


def _answer(name: str, bundle: Bundle, paths: Sequence) -> list:
    opened = open_runtime(name, bundle)
    prep = bundle.manifest.preparation
    x = check.images(1, (prep.channels, *prep.size)).numpy()
    runs = [opened.prepare(path.name, 1) for path in paths]
    for run in runs:
        run(x)
    return [opened, *runs]


if __name__ == "__main__":
    main()
