"""Does every export equal eager? Every registered model, scaled down, every named path, in ONNX Runtime and OpenVINO.

Paths in which gates decide are exported step by step and compared whole. The limit is 1e-4, relative and absolute.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import polypath as pp
from benchmarks.trained import PLACE
from polypath.deploy.export import export_path
from polypath.deploy.stepwise import write_stepwise
from polypath.registry import PRESETS

MOST = 8  # named paths of a model; of more, the first and last ones


def run() -> dict:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from contracts.small import small_net  # pyright: ignore

    file, rows = PLACE / "exports.jsonl", []  # a row is kept as soon as it is there: all of them take half an hour
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(row["model"], row["paths"]): row for row in known}
    for name in PRESETS:
        net = small_net(name).eval()
        size = max(net.min_size, 16)
        named = list(net.named_paths())
        for text in named if len(named) <= MOST else named[: MOST // 2] + named[-MOST // 2 :]:
            if (name, text) not in done:
                with open(file, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps(_one(net, name, text, size)) + "\n")
                done[name, text] = json.loads(file.read_text().splitlines()[-1])
                print(done[name, text])
            rows.append(done[name, text])
    worst = max((row["share_of_tolerance"] for row in rows if "max_abs" in row), default=0.0)
    return {
        "most_paths_a_model": MOST,
        "worst_share_of_tolerance": worst,
        "rows": rows,
        "kept": all("error" not in row for row in rows),
    }


def _one(net: pp.PathNet, name: str, text: str, size: int) -> dict:
    child, start = pp.extract(net, text), time.perf_counter()
    gated = any(join.gates for join in child.wiring.joins.values())
    row = {"model": name, "paths": text, "step_by_step": gated}
    with tempfile.TemporaryDirectory() as place:
        try:
            if gated:
                checks = write_stepwise(child, Path(place) / "steps", size=size)
            else:
                checks = export_path(net, text, place, "onnx", size=size).checks
            row |= {"runtimes": [c.runtime for c in checks], "max_abs": max(c.max_abs for c in checks)}
            row["share_of_tolerance"] = max(c.share for c in checks)
        except ValueError as error:
            row["error"] = str(error)
    return row | {"seconds": round(time.perf_counter() - start, 2)}
