"""Functions that make the result from trained networks: scoring, timing, assembly."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.outside.front import fronts, packed, told
from benchmarks.outside.methods import Method
from benchmarks.outside.networks import Trained, arguments
from benchmarks.outside.plan import FACTORS, Planned
from benchmarks.outside.scoring import answers, answers_of_bundle
from benchmarks.outside.timing import bundle_of, timed
from benchmarks.outside.training import Tuned, run_folder
from polypath.data.config import DataConfig
from polypath.data.sources import ImageData
from polypath.deploy.bundle import Bundle
from polypath.profiling.cost import costs
from polypath.storage.loading import load
from polypath.training.build import MODEL

FORMAT = 1


def collect(
    folder: Path,
    methods: Mapping[str, Method],
    made: Sequence[tuple[Planned, Tuned, list[Trained]]],
    data: ImageData,
    config: DataConfig,
    *,
    pflop: float,
    seeds: Sequence[int],
    runtime: str | None,
    beside: Mapping[str, Bundle],
) -> dict[str, Any]:
    """Score and time those networks for which this has not been done. Return the result of all as JSON values."""
    points, networks = [], []
    bundles: dict[str, Bundle] = {}
    for planned, best, runs in made:
        network, first = planned.network, run_folder(folder, planned, seeds[0])
        found = [
            answers(
                folder / "answers" / f"{planned.key},seed={seed}.npz",
                run_folder(folder, planned, seed),
                network.paths,
                data,
                config,
            )
            for seed in seeds
        ]
        net = load(first / MODEL)
        counted = costs(net, {text: text for text in network.paths}, data.size)
        if runtime is not None:
            bundles[planned.key] = bundle_of(folder / "bundles" / planned.key, first / MODEL, network.paths)
        for text in network.paths:
            hits = np.stack([one[text].hits for one in found])
            points.append(
                _point(planned.method, planned.key, text, hits)
                | {"macs": counted[text].macs, "params": counted[text].params, "images": found[0][text].images}
            )
        networks.append(
            {
                "method": planned.method,
                "network": planned.key,
                **arguments(network),
                "unit": network.unit,
                "amount": planned.amount,
                "lr": best["lr"],
                "tried": best["tried"],
                "trial": best["trial"],
                "pflop_planned": planned.pflop,
                "pflop": [run.pflop for run in runs],
                "pflop_of_tuning": best["pflop"],
                "seconds": [run.seconds for run in runs],
            }
        )
    looks = len(seeds) * len(points) + sum(run.test_evaluations for _, _, runs in made for run in runs)
    for name, bundle in beside.items():
        bundles[name] = bundle
        rights = answers_of_bundle(folder / "answers" / f"beside,{name}.npz", bundle, data)
        looks += len(rights)
        for path in bundle.paths:
            # a bundle has one network, which counts for each seed
            hits = np.repeat(rights[path.name].hits[None], len(seeds), 0)
            points.append(
                _point(name, name, path.name, hits)
                | {"macs": path.macs, "params": path.params, "images": rights[path.name].images}
            )
    measured = timed(folder / "runtime.json", runtime, bundles) if runtime is not None and bundles else None
    for row in points:
        times = {} if measured is None else measured["times"][row["network"]][row["path"]]
        row |= {"p50_ms": None, "p95_ms": None} | times
    result = {
        "format": FORMAT,
        "pflop": pflop,
        "seeds": list(seeds),
        "trials": {"factors": list(FACTORS), "chosen_by": "held-out error, the mean over the paths", "seed": seeds[0]},
        "data": {"name": data.name, "note": data.note, "images": len(data.test), "training_images": len(data.train)},
        "methods": {
            name: {
                "about": methods[name].about,
                "pflop": _sum([statistics.fmean(run["pflop"]) for run in networks if run["method"] == name]),
                "pflop_of_tuning": _sum([run["pflop_of_tuning"] for run in networks if run["method"] == name]),
            }
            for name in dict.fromkeys(planned.method for planned, _, _ in made)
        },
        "networks": networks,
        "points": points,
        "test_evaluations": looks,
        "runtime": measured,
        "hypervolume": None,
    }
    if measured is not None:
        result["hypervolume"] = told(fronts(result))
    return result


def _point(method: str, network: str, path: str, hits: np.ndarray) -> dict[str, Any]:
    errors = [round(100.0 * float(1.0 - row.mean()), 4) for row in hits]
    return {
        "method": method,
        "network": network,
        "path": path,
        "name": network if path == "whole" else f"{network} {path}",
        "error": round(statistics.fmean(errors), 4),
        "errors": errors,
        "answers": packed(hits),
    }


def _sum(values: Sequence[float]) -> float:
    return float(sum(values))
