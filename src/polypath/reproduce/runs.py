"""The store of runs: one folder outside any checkout, in which each recipe is trained once for all experiments.

    STORE/KEY/key.json  the data whose digest is the key
    STORE/KEY/run/      an ordinary run folder; if the loss was not finite, failed.json contains the error

STORE is ``POLYPATH_RUNS``, else ``~/.local/share/polypath/runs``. KEY is the family and a digest of everything that
determines a run's numbers: recipe with seed, images, kind of device, and the code that training uses
(:func:`polypath.reproduce.code.training_id`). So experiments with a common arm share its runs, and unrelated commits do
not cause retraining. Runs with other images, code or devices are never mixed in.

A run is finished when it has its summary, which is written last. An unfinished run resumes from its last checkpoint.
The training process holds the lock of the run's folder. Other processes that need the run wait for the lock.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from polypath.core.home import runs_folder
from polypath.core.later import leave_out_later
from polypath.reproduce.code import training_id
from polypath.reproduce.images import Images
from polypath.reproduce.trained import FAILED
from polypath.storage.digests import json_digest
from polypath.storage.files import read_json, write_file, write_json
from polypath.storage.lock import FolderLock, Taken
from polypath.training.build import resolve_device, resolve_precision
from polypath.training.loop import resume, train
from polypath.training.own_process import in_process_of_its_own
from polypath.training.recipe import Recipe, recipe_to_json

LOG = logging.getLogger(__name__)
USUAL = 2
"""The recipes' default number of kept checkpoints."""
NO_PART = ("name", "assumed", "device")
"""Recipe fields that do not affect a run's numbers, or that the run's key contains in another form."""


@dataclass(frozen=True)
class Run:
    """One run of the store, in the folder ``folder`` of its key. In ``recipe``, the precision is settled, and a
    checkpoint is saved every epoch, unless checkpoints are points of a figure."""

    recipe: Recipe
    folder: Path
    key: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def failed(self) -> str:
        """The reason why the run has no result (the loss was not finite); empty if the run has not failed."""
        file = self.path / FAILED
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    @property
    def finished(self) -> bool:
        return any((self.path / name).is_file() for name in ("summary.json", FAILED))


class RunStore:
    """A store of runs in ``folder``; the default is the user's store.

    Raises:
        ValueError: no folder is given and the home folder is unknown.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        place = Path(folder) if folder is not None else runs_folder()
        if place is None:
            raise ValueError("the home folder is unknown; set the folder for runs by --runs DIR or POLYPATH_RUNS")
        self.folder = place

    def run(self, recipe: Recipe, images: Images) -> Run:
        """Return the run of a recipe on these images, without training or writing anything."""
        device = resolve_device(recipe.device)
        every = 1 if recipe.keep <= USUAL else recipe.checkpoint_every  # if more are kept, they are points of a figure
        recipe = replace(recipe, precision=resolve_precision(recipe.precision, device), checkpoint_every=every)
        values = recipe_to_json(recipe)
        leave_out_later(recipe, values)
        values = {k: v for k, v in values.items() if k not in NO_PART}
        values["data"] = {k: v for k, v in values["data"].items() if k != "source"}
        identity = {name: asdict(part) for name, part in images.identity(recipe.data).items()}
        key = {
            "recipe": values,
            "images": json_digest(identity or recipe.data.source),
            "device": device.type,
            "code": training_id(),
        }
        name = f"{recipe.model.family}-{json_digest(key)[:16]}"
        return Run(replace(recipe, name=name), self.folder / name, key)

    def finish(self, run: Run, images: Images, told: str, slot: int | None = None) -> None:
        """Train or resume ``run``, unless it is finished or its loss was not finite. With a ``slot``, train in a
        separate process.

        ``told`` is the run's name in the log. If another process is training the run, this call waits.

        Raises:
            ValueError: the run cannot be trained.
            Interrupted, Stopped: Ctrl-C or SIGTERM. The run has saved a checkpoint and stopped.
        """
        if run.finished:
            return
        run.folder.mkdir(parents=True, exist_ok=True)
        with _claimed(run.folder):
            if not run.finished:
                write_json(run.folder / "key.json", run.key)
                _train(run, images, told, slot)


def _train(run: Run, images: Images, told: str, slot: int | None) -> None:
    recipe, path = run.recipe, run.path
    try:
        place = images.folder(recipe.data)
        if slot is not None:
            in_process_of_its_own(recipe, path, slot, place)
        elif (path / "recipe.json").is_file():
            resume(path, data=images.of(recipe.data), data_moved=place, quiet=True)
        else:
            train(recipe, path, data=images.of(recipe.data), data_moved=place, quiet=True)
    except (FloatingPointError, RuntimeError) as error:
        if "loss is not finite" not in str(error):
            raise ValueError(f"{path}: {error}") from error
        write_file(path / FAILED, f"{' '.join(str(error).split())}\n")
        LOG.warning("%s: diverged", told)
        return
    done = read_json(path / "summary.json")
    # with the objective "path", the summary's test error is not that of the trained path
    error = f", test error {done['test_error']:.2f}%" if recipe.objective.kind != "path" else ""
    LOG.info("%s: trained in %s s%s", told, f"{done['seconds']:,.0f}", error)


@contextlib.contextmanager
def _claimed(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Hold the folder's lock. Wait while another writer holds it."""
    lock, said = FolderLock(folder), False
    while True:
        try:
            lock.take()
            break
        except Taken as other:
            if not said:
                LOG.info("waiting: %s", other)
            said = True
            time.sleep(patience)
    try:
        yield
    finally:
        lock.release()
