"""Run an experiment: train each arm with each seed, measure, judge, write the result folder.

    result = reproduce("crescendonet/table2", "small", out="reproduced/table2")

``out`` holds the result (:mod:`polypath.reproduce.store`) and ``runs/CODE/``: an ordinary run folder for each arm and
seed, and what was measured on each seed. CODE is the code's revision, so runs of another one are never mixed in: they
stay beside, and it is said that they are not used. Called again, an experiment goes on: finished runs are read, begun
ones resumed.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from polypath.core.checks import check, whole
from polypath.core.deprecation import notes_are_logged
from polypath.reproduce.claims import judge
from polypath.reproduce.code import code_id
from polypath.reproduce.collect import collect
from polypath.reproduce.experiment import Experiment, Scale
from polypath.reproduce.images import Images, check_splits, with_source
from polypath.reproduce.measured import Measured, load_measured, save_measured
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result
from polypath.reproduce.store import save_result, set_aside
from polypath.reproduce.trained import FAILED, Trained
from polypath.storage.files import contents, read_json, sweep_out, write_file
from polypath.storage.lock import FolderLock
from polypath.training.build import resolve_device
from polypath.training.loop import resume, train
from polypath.training.own_process import in_process_of_its_own, passed_on
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.run import DATA
from polypath.training.run_data import places
from polypath.training.signals import Stopped, leaving

LOG = logging.getLogger(__name__)


@notes_are_logged
def reproduce(
    experiment: str | Experiment,
    scale: str = "small",
    *,
    seeds: int | None = None,
    device: str | None = None,
    out: str | os.PathLike[str] | None = None,
    source: str | None = None,
    data_moved: str | os.PathLike[str] | None = None,
    workers: int = 1,
) -> Result:
    """Run an experiment at a scale and write its result to ``out``.

    Args:
        experiment: its name, or one of your own.
        scale: ``smoke``, ``small`` or ``paper``.
        seeds: how many, from 0 on; by default as many as the scale says.
        device: for all arms; by default their recipes'.
        out: result folder; by default ``reproduced/PAPER-TABLE-SCALE``.
        source: images from elsewhere, see :func:`polypath.reproduce.images.with_source`.
        data_moved: the folder in which the images are now; they must be those of the runs that have begun.
        workers: runs at a time, as processes of their own; 1 trains in this process.

    Raises:
        ValueError: an unknown experiment or scale, a dataset without the splits that are needed, a folder that holds
            something else or that another process is writing into, a run that cannot be trained.
        Interrupted, Stopped: Ctrl-C or SIGTERM; the runs have saved and left.
    """
    experiment = get_experiment(experiment) if isinstance(experiment, str) else experiment
    plan = experiment.scale(scale)
    wanted = plan.seeds if seeds is None else seeds
    check("seeds", wanted, whole(1))
    check("workers", workers, whole(1))
    if device is not None:
        resolve_device(device)
    arms = with_source(plan.arms, source)
    if device is not None:
        arms = {arm: dataclasses.replace(recipe, device=device) for arm, recipe in arms.items()}
    plan = dataclasses.replace(plan, arms=arms)
    folder = Path(out) if out is not None else Path("reproduced") / f"{experiment.name.replace('/', '-')}-{scale}"
    _check_folder(folder, experiment, scale)
    runs = {path: recipe.data for recipe, path in _tasks(plan, range(wanted), folder / "runs" / code_id())}
    images = Images(places(runs, None if data_moved is None else os.fspath(data_moved)))
    check_splits(images.located(recipe.data) for recipe in arms.values())

    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        _check_folder(folder, experiment, scale)  # another process may have been there in between
        return _reproduced(experiment, scale, plan, wanted, folder, images, workers)


def _reproduced(
    experiment: Experiment, scale: str, plan: Scale, wanted: int, folder: Path, images: Images, workers: int
) -> Result:
    begun, runs = time.monotonic(), folder / "runs" / code_id()
    runs.mkdir(parents=True, exist_ok=True)
    sweep_out(runs)
    if others := sorted(p.name for p in runs.parent.iterdir() if p.name != runs.name):
        LOG.warning("stale: runs of other revisions are not used: %s in %s", ", ".join(others), runs.parent)
    measured = _train_and_measure(experiment, plan, range(wanted), runs, images, workers)
    counts = dict(experiment.counts(scale)) if experiment.counts is not None else {}
    result = collect(experiment, scale, plan, measured, counts, runs, images.notes, time.monotonic() - begun)
    result = dataclasses.replace(result, verdicts=judge(experiment.claims, result.sample(), counts))
    if (kept := set_aside(folder)) is not None:
        LOG.warning("stale: the result of another revision that was here is kept in %s", kept)
    save_result(result, folder, experiment)
    return result


def run_folder(runs: Path, arm: str, seed: int) -> Path:
    """Where an arm's run with a seed stands."""
    return runs / f"{_word(arm)},seed={seed}"


def _tasks(plan: Scale, seeds: Sequence[int], runs: Path) -> list[tuple[Recipe, Path]]:
    """Each run's recipe, and its folder."""
    return [
        (dataclasses.replace(recipe, name=_word(arm), seed=seed), run_folder(runs, arm, seed))
        for seed in seeds
        for arm, recipe in plan.arms.items()
    ]


def _train_and_measure(
    experiment: Experiment, plan: Scale, seeds: Sequence[int], runs: Path, images: Images, workers: int
) -> dict[int, Measured]:
    if experiment.measure is None:
        return {}
    tasks = _tasks(plan, seeds, runs)
    for recipe, folder in tasks:
        file = folder / "recipe.json"
        if file.is_file() and not _same(read_json(file), recipe_to_json(recipe), (folder / DATA).is_file()):
            raise ValueError(f"{folder}: is a run of another recipe; choose another --out")
    if workers > 1:
        slots = list(range(workers))
        with passed_on() as request, ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(lambda task: _in_a_slot(task[0], task[1], images, slots), tasks))
            except Stopped as stop:
                LOG.warning("%s; the same command goes on", stop)
                raise leaving(request.signal, str(stop)) from None
    measured: dict[int, Measured] = {}
    for seed in seeds:
        file = runs / f"measured,seed={seed}.npz"
        found = load_measured(file, list(plan.arms))
        if found is None:
            trained = {}
            for arm, recipe in plan.arms.items():
                own, folder = dataclasses.replace(recipe, name=_word(arm), seed=seed), run_folder(runs, arm, seed)
                _one(own, folder, images)
                trained[arm] = Trained(arm, seed, folder, images.of(recipe.data), recipe.device)
            found = experiment.measure(trained)
            save_measured(file, found, list(plan.arms))
        measured[seed] = found
    return measured


def _in_a_slot(recipe: Recipe, folder: Path, images: Images, slots: list[int]) -> None:
    slot = slots.pop()
    try:
        _one(recipe, folder, images, slot)
    finally:
        slots.append(slot)


def _one(recipe: Recipe, folder: Path, images: Images, slot: int | None = None) -> None:
    """Train or resume one run, unless it is finished or has failed for good; in a ``slot``, as a process of its own."""
    if (folder / "summary.json").is_file() or (folder / FAILED).is_file():
        return
    try:
        place = images.places.get(recipe.data.source)
        if slot is not None:
            in_process_of_its_own(recipe, folder, slot, place)
        elif (folder / "recipe.json").is_file():
            resume(folder, data=images.of(recipe.data), data_moved=place, quiet=True)
        else:
            train(recipe, folder, data=images.of(recipe.data), data_moved=place, quiet=True)
    except (FloatingPointError, RuntimeError) as error:
        if "loss is not finite" not in str(error):
            raise ValueError(f"{folder}: {error}") from error
        with FolderLock(folder):
            write_file(folder / FAILED, f"{' '.join(str(error).split())}\n")
        LOG.warning("%s: diverged", folder.name)
        return
    done = read_json(folder / "summary.json")
    told = "" if recipe.objective.kind == "path" else f", test error {done['test_error']:.2f}%"  # that of all paths
    LOG.info("%s: trained in %s s%s", folder.name, f"{done['seconds']:,.0f}", told)


def _same(ran: Any, asked: dict[str, Any], recorded: bool) -> bool:
    """Whether a run is of the recipe that is asked for.

    A run has settled its precision where that is ``auto``, and its images may have moved where they are ``recorded``:
    whether they are the same is checked when they are read.
    """
    if recorded and isinstance(ran, dict) and isinstance(ran.get("data"), dict):
        asked = asked | {"data": asked["data"] | {"source": ran["data"].get("source")}}
    if asked["precision"] == "auto" and isinstance(ran, dict):
        asked = asked | {"precision": ran.get("precision")}
    return ran == asked


def _check_folder(folder: Path, experiment: Experiment, scale: str) -> None:
    file = folder / "result.json"
    if file.is_file():
        held = read_json(file)
        if (held.get("experiment"), held.get("scale")) != (experiment.name, scale):
            raise ValueError(
                f"{folder} holds {held.get('experiment')} at scale {held.get('scale')}: choose another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(p.name != "runs" for p in contents(folder))):
        raise ValueError(f"{folder} exists and holds no result: choose another --out")


def _word(arm: str) -> str:
    return "".join(c if c.isalnum() or c in "-+_=" else "_" for c in arm)
