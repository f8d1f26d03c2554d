"""Opens hostile bundles, configs, recipes, times, weights and graphs, generated as in ``tests/fuzz/hostile_files.py``.
Each file must be opened, or rejected with an error of one line. ``python -m benchmarks hostile_files`` runs this
benchmark. It is also a part of ``attacks``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

if (TESTS := str(Path(__file__).resolve().parent.parent / "tests")) not in sys.path:
    sys.path.insert(0, TESTS)
from fuzz import hostile_files

NUMBER = int(os.environ.get("POLYPATH_BENCH_HOSTILE_FILES", "500"))
SEED = int(os.environ.get("POLYPATH_BENCH_SEED", "17"))


def run(number: int = NUMBER, seed: int = SEED) -> dict:
    answers: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("POLYPATH_CACHE")
        os.environ["POLYPATH_CACHE"] = str(Path(folder) / "cache")  # one of the tested readers reads stored times
        (place := Path(folder) / "files").mkdir()
        begun = time.perf_counter()
        try:
            findings = hostile_files.run(seed, number, place, answers=answers)
        finally:
            if before is None:
                del os.environ["POLYPATH_CACHE"]
            else:
                os.environ["POLYPATH_CACHE"] = before
        took_s = time.perf_counter() - begun
    for finding in findings:
        print(finding)
    return {
        "cases": number,
        "seed": seed,
        "took_s": took_s,
        "opened": dict(answers),
        "findings": [asdict(finding) for finding in findings],
        "verdicts": {"each is opened, or refused with one line": not findings},
    }
