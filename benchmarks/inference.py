"""Measures inference of every family and its peers: images/s, MACs/s and share of the roof, at batch sizes 1 and 64
(and 256 on GPUs).

Our networks run eager in both layouts, fused, and exported to OpenVINO and ONNX Runtime. Peers run eager in both
layouts. All ways to run a network are measured alternately. In gated networks, gates decide in torch, and all loops run
in exports. Their MACs are those of all loops.
"""

from __future__ import annotations

from benchmarks import roof, runtimes
from benchmarks.harness import batches, by_turns, device_peak, measured_precisions, precisions, show
from benchmarks.models import MODELS, macs

SECONDS = 12.0  # budget of seconds for one network at one batch size


def run() -> dict:
    rows = []
    for name in MODELS:
        for precision in measured_precisions():
            for batch in batches(1, 64):
                rows += measure(name, batch, precision, SECONDS)
    return {"precisions": precisions(), "rows": rows}


def measure(name: str, batch: int, precision: str, seconds: float) -> list[dict]:
    """Return a row for each way to run one network. All ways are measured alternately."""
    model = MODELS[name]
    net = model.make().eval()
    count = macs(net)
    tasks = runtimes.tasks(net, batch, precision)
    times = by_turns(tasks, seconds)
    best = roof.seconds(net, batch, precision) if batch > 1 else None
    eager = min(times[way]["median_s"] for way in ("eager", "eager, channels-last"))
    rows = []
    for way, time in times.items():
        rows.append({
            "model": name, "whose": model.whose, "precision": precision, "batch": batch, "way": way, **time,
            "images_per_s": batch / time["median_s"], "gmacs_per_s": count * batch / time["median_s"] / 1e9,
            "of_roof": best and best / time["median_s"], "over_eager": eager / time["median_s"],
            "peak_bytes": device_peak(tasks[way]),
        })  # fmt: skip
    show(f"{name}, batch {batch}, {precision}", rows, {
        "way": "", "median_s": ".4f", "images_per_s": ".1f", "gmacs_per_s": ".1f", "of_roof": ".2f",
        "over_eager": ".2f",
    })  # fmt: skip
    return rows
