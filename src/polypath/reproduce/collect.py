"""Combines the measurements of all seeds into a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polypath.reproduce.code import code_id
from polypath.reproduce.experiment import Experiment, Scale, definition_id
from polypath.reproduce.in_print import printed_number
from polypath.reproduce.measured import Measured
from polypath.reproduce.result import Result
from polypath.reproduce.tasks import Found
from polypath.storage.files import read_json
from polypath.training.build import resolve_device
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.result import count_test_evaluations
from polypath.training.run import RunFolder, environment, revision


def collect(
    experiment: Experiment,
    scale: str,
    plan: Scale,
    found: Found,
    counts: Mapping[str, float],
    data: list[str],
    seconds: float,
) -> Result:
    """Combine the measurements of all seeds into a result. Keys that are missing for a seed are left out."""
    per_seed, per_half = list(found.whole.values()), list(found.half.values())
    correct = {key: np.stack([m.correct[key].hits for m in per_seed]) for key in _common(per_seed, "correct")}
    runs = {task.run.path: task for task in found.tasks}
    done = [read_json(path / "summary.json") for path, task in runs.items() if not task.run.failed]
    looks = [sum(count_test_evaluations(RunFolder.open(p)).values()) for p, task in runs.items() if not task.run.failed]
    devices = {recipe.device for recipe in plan.arms.values()} or {"cpu"}
    keys = {*correct, *_common(per_seed, "values"), *counts}
    return Result(
        experiment=experiment.name,
        scale=scale,
        place=experiment.place,
        shows=experiment.shows,
        changes=plan.changes,
        seeds=tuple(found.whole),
        revision=revision(),
        code=code_id(),
        definition=definition_id(experiment, scale, plan),
        environment=_environment(sorted(devices)[0]),
        seconds=round(seconds, 1),
        training_seconds=round(sum(d["seconds"] for d in done), 1),
        data=data,
        errors={key: list(map(_error, hits)) for key, hits in correct.items()},
        images={key: hits.shape[1] for key, hits in correct.items()},
        values={key: [float(m.values[key]) for m in per_seed] for key in _common(per_seed, "values")},
        counts={key: float(v) for key, v in counts.items()},
        half_errors={k: [_error(m.correct[k].hits) for m in per_half] for k in _common(per_half, "correct")},
        half_values={key: [float(m.values[key]) for m in per_half] for key in _common(per_half, "values")},
        precisions=sorted({task.run.recipe.precision for task in found.tasks}),
        units=dict(experiment.units),
        curves={key: [list(m.curves[key]) for m in per_seed] for key in _common(per_seed, "curves")},
        histograms={key: [dict(m.histograms[key]) for m in per_seed] for key in _common(per_seed, "histograms")},
        pictures=dict(per_seed[0].pictures) if per_seed else {},
        published={k: printed_number(experiment, cell) for k, cell in experiment.published.items() if k in keys},
        diverged={task.name: task.run.failed for task in found.tasks if task.run.failed},
        test_evaluations=sum(looks),
        arms=_arms(plan.arms),
        correct=correct,
        test_sets={key: per_seed[0].correct[key].images for key in correct},
    )


def _error(hits: np.ndarray) -> float:
    return round(100.0 * (1.0 - float(hits.mean())), 4)


def _common(per_seed: list[Measured], what: str) -> list[str]:
    """Return the keys that all seeds have, in the order of the first seed."""
    if not per_seed:
        return []
    return [key for key in getattr(per_seed[0], what) if all(key in getattr(m, what) for m in per_seed)]


def _environment(device: str) -> dict[str, Any]:
    found = environment(resolve_device(device))
    return {k: v for k, v in found.items() if k not in ("command", "revision")}  # the command contains local paths


def _arms(arms: Mapping[str, Recipe]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for arm, recipe in arms.items():
        flat = _flat(recipe_to_json(recipe))
        flat = {k: v for k, v in flat.items() if k not in ("name", "seed", "data.source")}
        told[arm] = {k: v for k, v in flat.items() if first.get(k) != v or k not in first}
        first = first or flat
    return told


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, v in values.items():
        flat |= _flat(v, f"{prefix}{key}.") if isinstance(v, dict) and v else {f"{prefix}{key}": v}
    return flat
