"""Measures a training step of every family and its peers: images/s, MACs/s, share of the roof, memory saved for the
backward pass.

A rival and the families that are compared with it are measured alternately, so that both times in a ratio are from the
same period.
"""

from __future__ import annotations

from torch import nn

from benchmarks import roof
from benchmarks.harness import Step, batches, by_turns, device_peak, held_bytes, measured_precisions, precisions, show
from benchmarks.models import MODELS, macs
from polypath.layers.gates import GateUnit

SECONDS, MOST = 20.0, 5  # budget of seconds for a family and its rival


def run() -> dict:
    rows, ratios = [], []
    for precision in measured_precisions():
        for batch in batches(1, 64):
            for group in groups():
                measured, found = compare(group, batch, precision)
                rows += measured
                ratios += found
    return {"precisions": precisions(), "rows": rows, "ratios": ratios}


def compare(group: list[str], batch: int, precision: str, seconds: float = SECONDS) -> tuple[list[dict], list[dict]]:
    """Measure networks alternately. Return their rows, and the MACs/s of each network divided by its rival's."""
    rows = measure(group, batch, precision, seconds)
    rates = {row["model"]: row["gmacs_per_s"] for row in rows}
    ratios = [
        {"model": name, "rival": rival, "batch": batch, "precision": precision, "ratio": rate / rates[rival]}
        for name, rate in rates.items()
        if (rival := MODELS[name].rival)
    ]
    show(f"training step, batch {batch}, {precision}", rows, {
        "model": "", "median_s": ".3f", "images_per_s": ".1f", "gmacs_per_s": ".1f", "of_roof": ".2f",
        "held_mib": ".0f",
    })  # fmt: skip
    return rows, ratios


def groups() -> list[list[str]]:
    """Return groups of networks: each rival with the families that are compared with it, then the other networks, each
    alone."""
    families: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        if model.rival:
            families.setdefault(model.rival, []).append(name)
    alone = [[name] for name, model in MODELS.items() if not model.rival and name not in families]
    return [[*ours, rival] for rival, ours in families.items()] + alone


def measure(names: list[str], batch: int, precision: str, seconds: float = SECONDS) -> list[dict]:
    nets: dict[str, nn.Module] = {name: MODELS[name].make() for name in names}
    if batch == 1:  # batch-norm in gates reads pooled maps, so it needs at least two images
        nets = {name: net for name, net in nets.items() if not any(isinstance(m, GateUnit) for m in net.modules())}
    held = {name: held_bytes(Step(net, min(batch, 8), precision).loss, net) for name, net in nets.items()}
    steps = {name: Step(net, batch, precision) for name, net in nets.items()}
    times = by_turns(steps, seconds, MOST)
    rows = []
    for name, time in times.items():
        count = 3 * macs(MODELS[name].make()) * batch
        best = 3 * roof.seconds(MODELS[name].make(), batch, precision) if batch > 1 else None
        rows.append({
            "model": name, "whose": MODELS[name].whose, "precision": precision, "batch": batch, **time,
            "images_per_s": batch / time["median_s"], "gmacs_per_s": count / time["median_s"] / 1e9,
            "of_roof": best and best / time["median_s"], "held_mib": held[name] / min(batch, 8) * batch / 2**20,
            "peak_bytes": device_peak(steps[name]),
        })  # fmt: skip
    return rows
