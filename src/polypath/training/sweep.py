"""Train many runs of one recipe, for several seeds and a grid of field values. The result is a table of errors (mean ±
standard deviation).

    result = sweep(get_recipe("dfn-mr26-cifar10"), range(5), {"model.depth": (26, 38, 50)}, "sweeps/depth")
    print(result.text())

The folder ``out`` has ``sweep.json`` (the arguments), a run folder for each combination, ``logs/``, and ``table.json``
and ``table.csv``, which are updated after each run. The same call continues a sweep: finished runs are read, started
runs are resumed, and failed runs are tried again. A run that fails is retried ``retries`` times, then listed as failed.

Each run is a process on this machine. ``workers`` runs train at the same time, distributed over the GPUs. Ctrl-C and
SIGTERM are forwarded to the runs, which save and exit. If the sweep is killed, its runs exit at once
(:mod:`polypath.training.own_process`). The sweep locks ``out``, and each run locks its own folder. With ``cluster``,
the runs are tasks on a Ray cluster. All machines of the cluster must see ``out`` under the same path.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from polypath.core.checks import check, plain, whole
from polypath.core.cluster import join_cluster
from polypath.core.deprecation import notes_are_logged
from polypath.storage.decode import read
from polypath.storage.files import check_own, read_json, write_file, write_json
from polypath.storage.lock import FolderLock
from polypath.training.own_process import here, in_process_of_its_own, passed_on
from polypath.training.path_objectives import Taught
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json, replace
from polypath.training.result import RunResult, result_of
from polypath.training.run_data import places
from polypath.training.settle import settled
from polypath.training.signals import Stopped, StopRequest, leaving
from polypath.training.trackers import check_tracker

LOG = logging.getLogger(__name__)

Runner = Callable[[Recipe, Path, int], None]
"""A function that trains or resumes a run. Its arguments are the recipe, the folder and the worker number. It raises an
exception if the run fails."""
Trained = tuple[dict[str, RunResult], dict[str, str]]


@dataclass(frozen=True)
class Row:
    """The results of one combination of values, averaged over the seeds. Errors are in percent. Standard deviations are
    None for fewer than two runs."""

    values: dict[str, Any]
    runs: int
    wanted: int
    test_error: float | None
    test_std: float | None
    val_error: float | None
    val_std: float | None


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep: ``rows`` in the order of the grid, ``results`` by run name, and the error message of each
    run in ``failed``."""

    rows: list[Row]
    results: dict[str, RunResult]
    failed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Format the table as text, with failed runs below it."""
        lines = [f"{'':40} {'test error %':>16} {'val error %':>16} {'runs':>6}"]
        for row in self.rows:
            name = ", ".join(f"{k}={v}" for k, v in row.values.items()) or "all"
            test, val = _plus_minus(row.test_error, row.test_std), _plus_minus(row.val_error, row.val_std)
            lines.append(f"{name:40} {test:>16} {val:>16} {f'{row.runs}/{row.wanted}':>6}")
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)


@notes_are_logged
def sweep(
    recipe: Recipe,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[Any]] | None = None,
    out: str | os.PathLike[str] = "sweep",
    *,
    cluster: str | None = None,
    workers: int = 1,
    retries: int = 1,
    data_moved: str | os.PathLike[str] | None = None,
    run: Runner | None = None,
) -> SweepResult:
    """Train ``recipe`` for each seed and each combination of the grid's values. The module's docstring describes the
    files and processes.

    Args:
        grid: maps the dotted name of a field to a list of values.
        cluster: address of a Ray cluster (``auto``: the cluster of this machine, ``local``: a new cluster).
        retries: how often a failed run is retried.
        data_moved: the folder in which the images are now, if they were moved. They must be the images of the started
            runs.
        run: function that trains one run. By default, each run is trained in a separate process.

    Raises:
        ValueError: a field is unknown or has an illegal value, there are no seeds, or ``out`` contains another sweep.
        ImportError: Ray (for ``cluster``) or a tracker is missing; the message says which extra to install.
        Interrupted, Stopped: Ctrl-C or SIGTERM was received; the runs have saved and exited.
    """
    seeds, grid = list(plain(list(seeds))), {name: list(plain(list(values))) for name, values in (grid or {}).items()}
    recipe = settled(recipe, data_moved)  # once, for all runs
    plan = plan_of(recipe, seeds, grid)
    folder, asked = Path(out), (recipe, seeds, grid)
    _claim(folder, *asked)  # check before anything is written, and again under the lock
    recipes = {name: one for name, (_, one) in plan.items()}
    runs = Runs(recipes, folder, run=run, cluster=cluster, workers=workers, retries=retries, data_moved=data_moved)

    def table(results: dict[str, RunResult], failed: dict[str, str]) -> SweepResult:
        return SweepResult(_rows(plan, results), dict(sorted(results.items())), failed)

    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        write_json(folder / "sweep.json", _claim(folder, *asked))
        return table(*runs.train(lambda results, failed: _write(folder, table(results, failed))))


class Runs:
    """A set of named runs. Each run has a folder with the run's name. Finished runs are read, and started runs are
    resumed.

    Args:
        recipes: maps the name of each run to its recipe.
        folder: the parent folder of the runs. The caller of :meth:`train` must hold the lock of this folder.
        cluster, workers, retries, data_moved, run: as for :func:`sweep`.

    Raises:
        ValueError: ``workers`` is below 1, or images are missing.
        ImportError: Ray (for ``cluster``) or a tracker is missing; the message says which extra to install.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        folder: Path,
        *,
        run: Runner | None = None,
        cluster: str | None = None,
        workers: int = 1,
        retries: int = 1,
        data_moved: str | os.PathLike[str] | None = None,
    ) -> None:
        self.workers = check("workers", workers, whole(1))
        self.retries = check("retries", retries, whole(0))
        for one in recipes.values():
            check_tracker(one.tracker)
        self.recipes, self.folder = recipes, folder
        own = run or (ray_runner(cluster) if cluster is not None else in_process_of_its_own)
        self._stops = passed_on if own is in_process_of_its_own else partial(nullcontext, StopRequest())
        self._run = own
        if run is None:
            self._run = _reading(own, folder, recipes, None if data_moved is None else os.fspath(data_moved))

    def train(self, told: Callable[[dict[str, RunResult], dict[str, str]], None] | None = None) -> Trained:
        """Train all runs. Return the results of finished runs and the error messages of failed runs, by run name. After
        each run, ``told`` is called with both mappings.

        Raises:
            Interrupted, Stopped: Ctrl-C or SIGTERM was received; the runs have saved and exited.
        """
        results: dict[str, RunResult] = {}
        failed: dict[str, str] = {}
        with self._stops() as request, ThreadPoolExecutor(self.workers) as pool:
            free = list(range(self.workers))
            waiting = [(name, 0) for name in self.recipes]
            running: dict[Future[RunResult], tuple[str, int, int]] = {}
            while running or (waiting and not request.signal):
                while waiting and free and not request.signal:
                    name, tried = waiting.pop(0)
                    slot = free.pop()
                    future = pool.submit(_one, self._run, self.recipes[name], self.folder / name, slot)
                    running[future] = (name, tried, slot)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name, tried, slot = running.pop(future)
                    free.append(slot)
                    if (error := future.exception()) is None:
                        results[name] = future.result()
                        LOG.info("%s: test error %.2f%%", name, results[name].test_error)
                    elif isinstance(error, Stopped):
                        waiting.append((name, tried))
                    elif tried < self.retries:
                        LOG.warning("%s: the run failed (%s) and will be retried", name, _line(error))
                        waiting.append((name, tried + 1))
                    else:
                        failed[name] = _line(error)
                        LOG.warning("%s: the run failed (%s)", name, failed[name])
                    if told is not None:
                        told(results, failed)
            if waiting:
                count = f"{len(results)} of {len(self.recipes)} runs finished"
                left = f"stopped with {count}; to continue, run the same command into {self.folder} again"
                LOG.warning(left)
                raise leaving(request.signal, left)
        return results, failed


def plan_of(
    recipe: Recipe, seeds: Sequence[int], grid: Mapping[str, Sequence[Any]]
) -> dict[str, tuple[dict[str, Any], Recipe]]:
    """Map the name of each run to its values from the grid and its recipe.

    Raises:
        ValueError: as for :func:`sweep`.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds = {list(seeds)}: give at least one seed, and each seed only once")
    if "seed" in grid:
        raise ValueError("the grid contains the field 'seed'; give seeds in the argument 'seeds' instead")
    if empty := [name for name, values in grid.items() if not len(values)]:
        raise ValueError(f"the grid has no values for {empty[0]!r}")
    plan: dict[str, tuple[dict[str, Any], Recipe]] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        for seed in seeds:
            name = ",".join([*(f"{k}={_word(v)}" for k, v in point.items()), f"seed={seed}"])
            if name in plan:
                raise ValueError(f"the grid contains the run {name!r} twice")
            plan[name] = (point, replace(recipe, {**point, "seed": seed}))
    return plan


def _reading(run: Callable[..., None], folder: Path, recipes: Mapping[str, Recipe], moved: str | None) -> Runner:
    """Wrap ``run`` so that all runs read their images from the same folder. If all runs are finished and ``moved`` is
    None, no images are needed."""
    if moved is None and all((folder / name / "summary.json").is_file() for name in recipes):
        return run
    found = places({folder / name: recipe.data for name, recipe in recipes.items()}, moved)
    return lambda recipe, path, slot: run(recipe, path, slot, found.get(recipe.data.source))


def ray_runner(address: str) -> Runner:
    """Return a runner on a Ray cluster. Each run gets a GPU if the cluster has GPUs.

    Raises:
        ImportError: Ray is missing; the message says which extra to install.
        ValueError: there is no cluster at ``address``.
    """
    ray = join_cluster(address)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0

    def remote(recipe: dict[str, Any], path: str, place: str | None) -> None:
        here(recipe_from_json(recipe), Path(path), place=place)

    function = ray.remote(num_gpus=gpus)(remote)
    return lambda recipe, path, slot, place=None: ray.get(
        function.remote(recipe_to_json(recipe), str(path.resolve()), place)
    )


def _one(run: Runner, recipe: Recipe, path: Path, slot: int) -> RunResult:
    if (path / "recipe.json").is_file() and not _same(recipe_from_json(read_json(path / "recipe.json")), recipe):
        raise ValueError(f"{path}: the folder contains a run of another recipe")
    if not (path / "summary.json").is_file():
        run(recipe, path, slot)
    return result_of(path)


def _same(found: Recipe, wanted: Recipe) -> bool:
    """Return whether a run's recipe is the recipe ``wanted``. The run may have resolved a precision of ``auto``, and
    the teacher's folder may have moved, since the run keeps a copy of the teacher."""
    settled: dict[str, Any] = {"precision": found.precision} if wanted.precision == "auto" else {}
    if isinstance(wanted.objective, Taught) and isinstance(found.objective, Taught):
        before, now = found.objective.teacher, wanted.objective.teacher
        settled |= {"objective.teacher": before} if Path(before).name == Path(now).name else {}
    return recipe_to_json(found) == recipe_to_json(replace(wanted, settled))


class _Claim(TypedDict):
    recipe: dict[str, Any]
    grid: dict[str, Any]
    seeds: list[int]


def _claim(folder: Path, recipe: Recipe, seeds: list[int], grid: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of ``sweep.json``. A call may add seeds to the seeds of an earlier call.

    Raises:
        ValueError: ``folder`` contains another sweep or other files.
    """
    check_own(folder, "sweep.json", "sweep")
    file = folder / "sweep.json"
    here = json.loads(json.dumps({"recipe": recipe_to_json(recipe), "grid": grid, "seeds": seeds}))
    if file.is_file():
        before = read(file, _Claim)
        before["recipe"] = recipe_to_json(recipe_from_json(before["recipe"]))  # adds the fields of newer versions
        for what in ("recipe", "grid"):
            if before[what] != here[what]:
                raise ValueError(f"{folder} contains a sweep of another {what}: choose another --out")
        here["seeds"] = list(dict.fromkeys([*before["seeds"], *seeds]))
    return here


def _rows(plan: Mapping[str, tuple[dict[str, Any], Recipe]], results: Mapping[str, RunResult]) -> list[Row]:
    points: dict[str, tuple[dict[str, Any], list[RunResult | None]]] = {}
    for name, (values, _) in plan.items():
        points.setdefault(repr(values), (values, []))[1].append(results.get(name))
    rows = []
    for values, found in points.values():
        done = [result for result in found if result is not None]
        test, val = [r.test_error for r in done], [r.val_error for r in done if r.val_error is not None]
        rows.append(Row(values, len(done), len(found), *_mean_std(test), *_mean_std(val)))
    return rows


def _mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def _plus_minus(mean: float | None, std: float | None) -> str:
    return "-" if mean is None else f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _write(folder: Path, result: SweepResult) -> None:
    write_json(folder / "table.json", asdict(result))
    text = io.StringIO()
    names = list(result.rows[0].values) if result.rows else []
    figures = ["runs", "wanted", "test_error", "test_std", "val_error", "val_std"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *figures])
    for row in result.rows:
        writer.writerow([*row.values.values(), *(getattr(row, name) for name in figures)])
    write_file(folder / "table.csv", text.getvalue())


def _word(value: Any) -> str:
    """Format a value as part of a folder's name."""
    text = "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return "".join(c if c.isalnum() or c in ".-+_" else "_" for c in text)


def _line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())
