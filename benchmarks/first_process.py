"""A process of ``benchmarks.first_answer``: runs ``polypath predict --json ...``, then prints its times as JSON.

``needs_ms``       remaining time that each path requires, by the stored profile, the most accurate path first
``typical_ms``     median time of each path in the stored profile
``decoding_ms``    CPU time of reading, decoding and preparing the image
``begun_ms``       time from the call until a path could start
``path_ms``        time of the path that answered
``cpu_s``          CPU time of the process, including imports and compilation
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from polypath.cli import main
from polypath.deploy.budget import Spent
from polypath.deploy.bundle import rank
from polypath.deploy.predictor import AnytimePredictor


def watch(found: dict[str, Any]) -> None:
    """Change the predictor so that it records the parts of an answer's time in ``found``."""
    choose, run_path, on_decoding = AnytimePredictor.choose, AnytimePredictor.run_path, Spent.on_decoding

    def noted_choice(self: AnytimePredictor, *args: Any, **options: Any) -> str:
        if "needs_ms" not in found:  # the command calls this once before it reads any image
            paths = self.latencies(1).paths
            names = [path.name for path in rank(self.bundle.paths)]
            found["needs_ms"] = {name: paths[name].needs for name in names}
            found["typical_ms"] = {name: paths[name].profiled.p50 for name in names}
        return choose(self, *args, **options)

    def noted_decoding(self: Spent, decode: Callable[[], Any]) -> Any:
        try:
            return on_decoding(self, decode)
        finally:
            found.update(decoding_ms=self.decoding_ms, begun_ms=self.ms)

    def noted_run(self: AnytimePredictor, name: str, x: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        try:
            return run_path(self, name, x)
        finally:
            found["path_ms"] = 1e3 * (time.perf_counter() - begun)

    AnytimePredictor.choose, AnytimePredictor.run_path, Spent.on_decoding = noted_choice, noted_run, noted_decoding


if __name__ == "__main__":
    where: dict[str, Any] = {}
    watch(where)
    status = main(["predict", *sys.argv[1:]])
    print(json.dumps(where | {"status": status, "cpu_s": time.process_time()}))
