"""Computes the result of a ladder from its finished runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.core.paths import WHOLE_TEXT
from polypath.profiling.cost import costs
from polypath.reproduce.measured import Measured
from polypath.reproduce.trained import Trained
from polypath.storage.files import read_json, write_json
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.result import RunResult, count_test_evaluations
from polypath.training.run import RunFolder, environment
from polypath.worth.answers import OWN, alone, in_network, stacked
from polypath.worth.deployed import deployed
from polypath.worth.plan import NET, Kind, run_name
from polypath.worth.result import LadderResult, LadderRow, TwinRow
from polypath.worth.tax import Taxes, errors
from polypath.worth.weights import bytes_of, shares

Open = Callable[[str, int], Trained]
"""A function that opens a finished run by its name and seed."""


def twin_run(kind: Kind, seed: int, path: str) -> str:
    """Return the name of the run of a path's twin. The whole network's twin of kind ``epochs`` is the teacher, and also
    serves as the twin of kind ``taught``."""
    return run_name("epochs" if kind == "taught" and path == WHOLE_TEXT else kind, seed, path)


def runs_of(seed: int, paths: Sequence[str], kinds: Sequence[Kind]) -> set[str]:
    """Return the names of the runs that the result needs for one seed."""
    return {run_name(NET, seed), *(twin_run(kind, seed, path) for kind in kinds for path in paths)}


def collect(
    recipe: Recipe,
    folder: Path,
    seeds: Sequence[int],
    paths: Sequence[str],
    kinds: Sequence[Kind],
    results: Mapping[str, RunResult],
    opened: Open,
    *,
    num_images: int,
    runtime: str | None,
    failed: Mapping[str, str],
) -> LadderResult:
    """Score paths and measure times and memory, as far as results are missing, and compute the ladder's result.

    Args:
        seeds: the seeds whose runs are all finished.
        results: the results of all these runs.
        runtime: the runtime in which times and memory are measured. With None, they are not measured.
    """

    def open_run(name: str, seed: int) -> Callable[[], Trained]:
        return lambda: opened(name, seed)

    names = {name: seed for seed in seeds for name in sorted(runs_of(seed, paths, kinds))}
    answers = {}
    for name, seed in names.items():
        file, run = folder / "answers" / f"{name}.npz", open_run(name, seed)
        is_net = name == run_name(NET, seed)
        answers[name] = in_network(file, run, paths, num_images) if is_net else alone(file, run)
    nets = [answers[run_name(NET, seed)] for seed in seeds]
    inside = {path: stacked(nets, path) for path in paths}
    twins = {
        kind: {path: stacked([answers[twin_run(kind, s, path)] for s in seeds], WHOLE_TEXT) for path in paths}
        for kind in kinds
    }
    taxes = Taxes(inside, twins)

    def twin_row(kind: Kind, path: str) -> TwinRow:
        runs = [twin_run(kind, seed, path) for seed in seeds]
        off, tax = errors(twins[kind][path]), taxes.of(kind, [path])
        return TwinRow(
            **vars(tax),
            error=_mean(off),
            errors=off,
            epochs=_epochs(folder / runs[0]),
            pflop=_pflop([results[run] for run in runs]),
        )

    first = opened(run_name(NET, seeds[0]), seeds[0])
    net, choices = first.net, {path: first.net.paths(path) for path in paths}
    counted, shared = costs(net, choices, first.image_size), shares(net, choices)
    measured = None
    if runtime is not None:
        measured = _measured(folder, runtime, first, paths, num_images, open_run, seeds[0])
    times: Mapping[str, Mapping[str, float]] = {} if measured is None else measured["times"]
    rows = tuple(
        LadderRow(
            name=path,
            paths=str(choices[path]),
            error=_mean(errors(inside[path])),
            error_own=_mean(errors(stacked(nets, f"{OWN}{path}"))),
            errors=errors(inside[path]),
            macs=counted[path].macs,
            params=counted[path].params,
            bytes=bytes_of(net, choices[path]),
            shared=round(shared[path], 4),
            **times.get(path, {}),
            alone={kind: twin_row(kind, path) for kind in kinds},
        )
        for path in sorted(paths, key=lambda path: counted[path].macs)
    )
    spent = {NET: _pflop([results[run_name(NET, seed)] for seed in seeds])}
    spent |= {kind: sum(row.alone[kind].pflop for row in rows) for kind in kinds}
    looks = sum(_looks(folder / name, results[name], answers[name]) for name in names)
    written = {key: value for key, value in environment(first.device).items() if key != "command"}
    return LadderResult(
        recipe=_anonymous(recipe, first),
        seeds=tuple(seeds),
        rows=rows,
        tax={kind: taxes.of(kind, paths) for kind in kinds},
        pflop=spent,
        bytes={"net": bytes_of(net), "twins": sum(row.bytes for row in rows)},
        data=first.data.name,
        note=first.data.note,
        images=inside[WHOLE_TEXT].shape[1],
        recalibrated=num_images,
        test_evaluations=looks,
        runtime=measured,
        environment=written,
        failed=dict(failed),
    )


def _measured(
    folder: Path,
    runtime: str,
    first: Trained,
    paths: Sequence[str],
    num_images: int,
    open_run: Callable[[str, int], Callable[[], Trained]],
    seed: int,
) -> dict[str, Any]:
    """Measure times and memory, or read the measurements of an earlier call."""
    file = folder / "runtime.json"
    if file.is_file() and (known := read_json(file))["name"] == runtime:
        return known
    stats = first.statistics(paths, num_images)
    twins = {path: open_run(run_name("epochs", seed, path), seed)().net for path in paths}
    choices = {path: first.net.paths(path) for path in paths}
    found = deployed(runtime, folder / "deployed", first.net, choices, stats, twins)
    write_json(file, found)
    return found


def _looks(run: Path, result: RunResult, answers: Measured) -> int:
    """Return the number of errors that have been measured on a run's test split. For runs of versions that did not
    count them, return the smallest possible number."""
    return max(
        sum(count_test_evaluations(RunFolder.open(run)).values()), (result.test_evaluations or 1) + len(answers.correct)
    )


def _anonymous(recipe: Recipe, run: Trained) -> dict[str, Any]:
    """Return the recipe as JSON values, with the name of the data set instead of its folder on this machine."""
    values = recipe_to_json(recipe)
    values["data"]["source"] = run.data.name
    return values


def _pflop(results: Sequence[RunResult]) -> float:
    """Return the mean PFLOP over runs."""
    if lacking := [result.run_dir for result in results if result.pflop is None]:
        raise ValueError(f"{lacking[0]} was started by a version that did not count PFLOP; choose another --out")
    return statistics.fmean(result.pflop for result in results if result.pflop is not None)


def _epochs(run: Path) -> int:
    return int(read_json(run / "recipe.json")["epochs"])


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 4)
