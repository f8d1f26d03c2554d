"""Checks that exports compute the same as eager mode: every named path of every registered model, scaled down.

The runtimes are ONNX Runtime and OpenVINO. Models that differ only in depth and width have the same scaled-down form,
which is exported once. The row of this form lists these models. Paths in which gates decide are exported step by step
and compared end to end. The tolerance is 1e-4, relative and absolute.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import polypath as pp
from polypath.deploy.export import export_path
from polypath.deploy.stepwise_write import write_stepwise
from polypath.families.registry import PRESETS


def run() -> dict:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from contracts.small import models_by_form, small_net

    forms, rows = models_by_form(), []
    for name, models in forms.items():
        net = small_net(name).eval()
        for text in net.named_paths():
            rows.append({"models": models, **_one(net, text, max(net.min_size, 16))})
            print(name, {k: v for k, v in rows[-1].items() if k != "models"}, flush=True)
    worst = max((row["share_of_tolerance"] for row in rows if "max_abs" in row), default=0.0)
    return {
        "models": len(PRESETS),
        "forms": len(forms),
        "exports": len(rows),
        "worst_share_of_tolerance": worst,
        "rows": rows,
        "kept": all("error" not in row for row in rows),
    }


def _one(net: pp.PathNet, text: str, size: int) -> dict:
    child, start = pp.extract(net, text), time.perf_counter()
    gated = any(join.gates for join in child.wiring.joins.values())
    row = {"paths": text, "step_by_step": gated}
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
