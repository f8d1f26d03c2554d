"""Detects whether something has become slower (``make bench-quick``). Some ratios of ``make bench`` are measured in
five minutes and compared with the stored ratios for this kind of machine.

Only ratios of times from one run are compared, since times differ between machines and hours.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks import runtimes
from benchmarks.harness import Step, by_turns
from benchmarks.kinds import folder
from benchmarks.models import MODELS, macs
from benchmarks.training import groups

# training steps of these rivals, and of the families compared with them, are measured
RIVALS = ("pytorchcv resnet110",)
ANSWERS = (("crescendonet_128", 1), ("dfn_mr56", 1), ("dfn_mr56", 64))
WHERE = {"precision": "float32"}
SECONDS, TURNS = 40.0, 3
LEAST = 0.75  # a ratio below this share of the stored one is reported as slower


def run() -> dict:
    rows = [*_training(), *_inference()]
    slower = [row for row in rows if row["share"] is not None and row["share"] < LEAST]
    for row in slower:
        print(f"slower: {row['what']} of {row['model']}, batch {row['batch']}: {row['share']:.2f} of the stored ratio")
    return {"least": LEAST, "rows": rows, "slower": len(slower)}


def _training() -> list[dict[str, Any]]:
    """Measure the MACs/s of a training step of each family, divided by those of its rival."""
    rows, stored = [], _stored("training", "ratios")
    for group in groups():
        rival = group[-1]
        if rival not in RIVALS:
            continue
        times = by_turns({name: Step(MODELS[name].make(), 64, "float32") for name in group}, SECONDS, TURNS)
        rates = {name: macs(MODELS[name].make()) / time["median_s"] for name, time in times.items()}
        for name in group[:-1]:
            known = next((r["ratio"] for r in stored if _is(r, name, 64)), None)
            rows.append(_row("training step", name, 64, rates[name] / rates[rival], known))
    return rows


def _inference() -> list[dict[str, Any]]:
    """Measure the speed of the fastest way to run a network, divided by that of the better eager form."""
    rows, stored = [], _stored("inference", "rows")
    for name, batch in ANSWERS:
        times = by_turns(runtimes.tasks(MODELS[name].make().eval(), batch, "float32"), SECONDS / 4)
        eager = min(times[way]["median_s"] for way in ("eager", "eager, channels-last"))
        ratio = eager / min(time["median_s"] for time in times.values())
        known = max((r["over_eager"] for r in stored if _is(r, name, batch)), default=None)
        rows.append(_row("inference", name, batch, ratio, known))
    return rows


def _is(row: dict[str, Any], model: str, batch: int) -> bool:
    return all(row[key] == value for key, value in (WHERE | {"model": model, "batch": batch}).items())


def _stored(name: str, key: str) -> list[dict[str, Any]]:
    file = folder() / f"{name}.json"
    return json.loads(file.read_text())[key] if file.is_file() else []


def _row(what: str, model: str, batch: int, ratio: float, stored: float | None) -> dict[str, Any]:
    share = ratio / stored if stored else None
    print(f"{what} of {model}, batch {batch}: {ratio:.2f}, stored {f'{stored:.2f}' if stored else 'none'}", flush=True)
    return {"what": what, "model": model, "batch": batch, "ratio": ratio, "stored": stored, "share": share}
