"""Runs an experiment: trains each arm with each seed, measures it, judges the claims, and writes the result folder.

    result = reproduce("crescendonet/table2", "small", out="reproduced/table2")

Training runs are kept in a store (:mod:`polypath.reproduce.runs`), which all experiments share. ``out`` contains the
result (:mod:`polypath.reproduce.store`) and, in ``measured/``, the measurements of each seed. The same call continues a
stopped experiment: it reads finished runs and resumes unfinished ones. It also reads stored measurements, if neither
the runs nor the code has changed.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from polypath.core.checks import check, whole
from polypath.core.deprecation import notes_are_logged
from polypath.reproduce.claims import judge
from polypath.reproduce.code import code_id
from polypath.reproduce.collect import collect
from polypath.reproduce.experiment import Experiment, Scale
from polypath.reproduce.frozen import SCALE, checked
from polypath.reproduce.images import Images, check_splits, with_source
from polypath.reproduce.measured import load_measured, save_measured
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result
from polypath.reproduce.runs import RunStore
from polypath.reproduce.store import save_result, set_aside
from polypath.reproduce.tasks import Found, Task, tasks_of
from polypath.reproduce.trained import Trained
from polypath.storage.digests import json_digest
from polypath.storage.files import contents, read_json
from polypath.storage.lock import FolderLock
from polypath.training.build import resolve_device
from polypath.training.own_process import passed_on
from polypath.training.signals import Stopped, leaving

LOG = logging.getLogger(__name__)
MEASURED = "measured"


@notes_are_logged
def reproduce(
    experiment: str | Experiment,
    scale: str = "small",
    *,
    seeds: int | None = None,
    device: str | None = None,
    out: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    source: str | None = None,
    data_moved: str | os.PathLike[str] | None = None,
    workers: int = 1,
) -> Result:
    """Run an experiment at a scale and write its result to ``out``.

    Args:
        experiment: the experiment's name, or an experiment object.
        scale: ``smoke``, ``small``, ``medium`` or ``paper``.
        seeds: the number of seeds, which are 0, 1, …. The default is the scale's number.
        device: the device of all arms. The default is the one in each recipe.
        out: the result folder. The default is ``reproduced/PAPER-TABLE-SCALE``.
        runs: the folder of the store of runs. The default is the user's store; see :mod:`polypath.reproduce.runs`.
        source: another source of the images; see :func:`polypath.reproduce.images.with_source`.
        data_moved: the folder to read the images from, if they have moved. Runs that were started with other images are
            not reused.
        workers: the number of runs to train concurrently, each in a separate process. With 1, they are trained in this
            process.

    Raises:
        ValueError: an unknown experiment or scale, a dataset without the needed splits, a folder that contains
            something else or that another process writes into, or a run that cannot be trained.
        Interrupted, Stopped: Ctrl-C or SIGTERM. The runs have saved a checkpoint and stopped.
    """
    experiment = get_experiment(experiment) if isinstance(experiment, str) else experiment
    plan = experiment.scale(scale)
    wanted = plan.seeds if seeds is None else seeds
    check("seeds", wanted, whole(1))
    check("workers", workers, whole(1))
    if device is not None:
        resolve_device(device)
    held = checked(experiment, plan) if scale == SCALE else None
    if held is not None and wanted != held.seeds:
        raise ValueError(f"--seeds {wanted}: must be {held.seeds} at {SCALE}, the number of seeds in the frozen plan")
    store = RunStore(None if runs is None else Path(runs))
    arms = with_source(plan.arms, source)
    if device is not None:
        arms = {arm: dataclasses.replace(recipe, device=device) for arm, recipe in arms.items()}
    plan = dataclasses.replace(plan, arms=arms)
    folder = Path(out) if out is not None else Path("reproduced") / f"{experiment.name.replace('/', '-')}-{scale}"
    _check_folder(folder, experiment, scale)
    images = Images(moved_to(plan, data_moved))
    check_splits(images.located(recipe.data) for recipe in arms.values())

    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, MEASURED):
        _check_folder(folder, experiment, scale)  # another process may have written here since the first check
        begun = time.monotonic()
        found = _train_and_measure(experiment, plan, range(wanted), store, folder / MEASURED, images, workers)
        counts = dict(experiment.counts(scale)) if experiment.counts is not None else {}
        result = collect(experiment, scale, plan, found, counts, images.notes, time.monotonic() - begun)
        verdicts = judge(
            experiment.claims,
            result.sample(),
            counts,
            half=result.half_means() if plan.both_lengths else None,
            undecidable=held.undecidable if held is not None else None,
            exercised=experiment.exercised(plan),
        )
        result = dataclasses.replace(result, verdicts=verdicts)
        if (kept := set_aside(folder)) is not None:
            LOG.warning("stale: the previous result was made by other code; it was moved to %s", kept)
        save_result(result, folder, experiment)
        return result


def _train_and_measure(
    experiment: Experiment,
    plan: Scale,
    seeds: Sequence[int],
    store: RunStore,
    folder: Path,
    images: Images,
    workers: int,
) -> Found:
    if experiment.measure is None:
        return Found([], {}, {})
    tasks = tasks_of(plan, seeds, store, images)
    if workers > 1:
        _train_beside(tasks, store, images, workers)
    folder.mkdir(exist_ok=True)
    found = Found(tasks, {}, {})
    groups: dict[tuple[int, bool], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.seed, task.half), []).append(task)
    for (seed, half), own in groups.items():
        of = json_digest([code_id(), [[task.arm, task.run.folder.name] for task in own]])[:12]
        file = folder / f"{of},seed={seed}{',half' if half else ''}.npz"
        measured = load_measured(file, list(plan.arms)) if all(task.run.finished for task in own) else None
        if measured is None:
            measured = experiment.measure(_trained(own, store, images))
            save_measured(file, measured, list(plan.arms))
        (found.half if half else found.whole)[seed] = measured
    return found


def _trained(tasks: Sequence[Task], store: RunStore, images: Images) -> Mapping[str, Trained]:
    found = {}
    for task in tasks:
        store.finish(task.run, images, task.name)
        recipe = task.run.recipe
        found[task.arm] = Trained(task.arm, task.seed, task.run.path, images.of(recipe.data), recipe.device)
    return found


def _train_beside(tasks: Sequence[Task], store: RunStore, images: Images, workers: int) -> None:
    """Train several runs concurrently. Arms that share a run are trained once."""
    slots, once = list(range(workers)), dict[Path, Task]()
    for task in tasks:
        once.setdefault(task.run.folder, task)

    def one(task: Task) -> None:
        slot = slots.pop()
        try:
            store.finish(task.run, images, task.name, slot)
        finally:
            slots.append(slot)

    with passed_on() as request, ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(one, once.values()))
        except Stopped as stop:
            LOG.warning("%s; run the same command again to resume", stop)
            raise leaving(request.signal, str(stop)) from None


def moved_to(plan: Scale, data_moved: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return, for each source, the folder to read its images from.

    Raises:
        ValueError: there are several sources, or no such folder.
    """
    if data_moved is None:
        return {}
    place = os.fspath(data_moved)
    sources = sorted({recipe.data.source for recipe in plan.arms.values()})
    if len(sources) > 1:
        raise ValueError(f"--data-moved {place}: there must be one source, but these runs have {', '.join(sources)}")
    if not os.path.isdir(place):
        raise ValueError(f"--data-moved {place}: no such folder")
    return dict.fromkeys(sources, os.path.abspath(place))


def _check_folder(folder: Path, experiment: Experiment, scale: str) -> None:
    file = folder / "result.json"
    if file.is_file():
        held = read_json(file)
        if (held.get("experiment"), held.get("scale")) != (experiment.name, scale):
            raise ValueError(
                f"{folder} contains the result of {held.get('experiment')} at {held.get('scale')}: choose another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(p.name not in (MEASURED, "runs") for p in contents(folder))):
        raise ValueError(f"{folder} exists but contains no result: choose another --out")
