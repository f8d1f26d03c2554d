r"""Compares one network with its own paths, each trained alone as a plain network.

    result = ladder(get_recipe("fractalnet-cifar10-fast"), range(3), out="ladders/fractalnet")
    print(*result.facts(), sep="\n")

The folder ``out`` contains

ladder.json               the arguments, and the chosen paths
net,seed=0                an ordinary run folder for each network and each twin (:mod:`polypath.worth.plan`)
logs/                     the output of these runs
answers/                  which test images each network and twin classifies correctly
deployed/, runtime.json   the bundles of the first seed, and their measurements
result.json, result.csv   the result
figure.png, figure.svg    the figure

A second call with the same arguments resumes, as a sweep does (:mod:`polypath.training.sweep`). The results of finished
parts are read, and nothing is scored on test images twice. Seeds and kinds of twins may be added. To measure times
again, remove ``runtime.json``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from polypath.analysis.finished_run import FinishedRun
from polypath.analysis.plots.style import save_figure
from polypath.core.checks import check, each, one_of, whole
from polypath.core.paths import WHOLE_TEXT
from polypath.data.sources import ImageData
from polypath.deploy.heldout import decide
from polypath.deploy.scoring import scored
from polypath.profiling.cost import costs
from polypath.reproduce.trained import Trained
from polypath.storage.decode import read
from polypath.storage.files import check_own, write_json
from polypath.storage.lock import FolderLock
from polypath.training.build import build_net
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json, replace
from polypath.training.result import RunResult
from polypath.training.settle import settled
from polypath.training.sweep import Runner, Runs
from polypath.worth.collect import collect, runs_of
from polypath.worth.deployed import runtime_name
from polypath.worth.figure import ladder_figure
from polypath.worth.plan import KINDS, MOST, NET, Kind, epochs_for, evenly, run_name, twin
from polypath.worth.result import LadderResult

LOG = logging.getLogger(__name__)


def ladder(
    recipe: Recipe,
    seeds: Sequence[int],
    paths: Sequence[str] | None = None,
    *,
    kinds: Sequence[Kind] = KINDS,
    out: str | os.PathLike[str] = "ladder",
    num_images: int = 2000,
    runtime: str | None = "auto",
    workers: int = 1,
    retries: int = 1,
    data_moved: str | os.PathLike[str] | None = None,
    run: Runner | None = None,
) -> LadderResult:
    """Train a network and the twins of its paths (each path trained alone), and compare both; see the module.

    Args:
        recipe: recipe of the network.
        paths: texts of at most five paths, including the whole, which is added if missing. With None, at most five
            paths are chosen as for an export, by the held-out images of the first seed's network.
        kinds: kinds of twins, see :mod:`polypath.worth.plan`. Those of kind ``epochs`` are always trained.
        num_images: number of training images to recalibrate batch-norm on.
        runtime: runtime for times and memory: ``openvino``, ``onnxruntime``, ``torch``, or ``auto`` for the first of
            these that is installed. With None, they are not measured.
        workers, retries, data_moved, run: as for :func:`polypath.training.sweep.sweep`.

    Raises:
        ValueError: a path or kind is unknown, there are more than five paths or no seeds, the folder contains another
            ladder, or the schedule does not fit another number of epochs.
        ImportError: the runtime is not installed.
        Interrupted, Stopped: Ctrl-C or SIGTERM was received. The runs have saved their state and ended.
    """
    check("seeds", tuple(seeds), each(whole(0)))
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds = {list(seeds)}: give at least one, and each only once")
    if recipe.path != WHOLE_TEXT:
        raise ValueError(f"path = {recipe.path!r}: a ladder trains the whole network; give paths with --paths")
    for kind in kinds:
        check("kinds", kind, one_of(*KINDS))
    recipe = settled(recipe, data_moved)  # settled once, so that all runs have the same recipe
    if "pflop" in kinds:
        _check_schedule(recipe)
    measuring = runtime_name(runtime)
    options = {"workers": workers, "retries": retries, "data_moved": data_moved, "run": run}
    made = _Ladder(recipe, list(seeds), _asked(recipe, paths), kinds, Path(out), num_images, options)
    made.claim()
    made.folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(made.folder):
        made.claim(write=True)
        return made.result(measuring)


def _check_schedule(recipe: Recipe) -> None:
    """Raise ``ValueError``, before anything is trained, if the schedule does not fit fewer epochs."""
    try:
        twin(recipe, WHOLE_TEXT, 0, max(1, recipe.epochs // 10))
    except ValueError as error:
        raise ValueError(
            f"twins with equal PFLOP train for fewer epochs, which does not fit this recipe ({error}); leave these "
            "twins out: --alone epochs --alone taught"
        ) from error


class _Claim(TypedDict):
    recipe: dict[str, Any]
    seeds: list[int]
    asked: list[str] | None
    num_images: int
    paths: list[str] | None


def _asked(recipe: Recipe, paths: Sequence[str] | None) -> list[str] | None:
    """Return the texts of the requested paths and of the whole, each once."""
    if paths is None:
        return None
    net, found = build_net(recipe), {}
    for text in (*paths, WHOLE_TEXT):
        choice = net.paths(text)
        found.setdefault(choice, WHOLE_TEXT if not choice else text)
    if len(found) > MOST:
        raise ValueError(f"paths: there are {len(found)} with the whole network; must be at most {MOST}")
    return list(found.values())


class _Ladder:
    """A ladder that is computed in a folder."""

    def __init__(
        self,
        recipe: Recipe,
        seeds: list[int],
        asked: list[str] | None,
        kinds: Sequence[Kind],
        folder: Path,
        num_images: int,
        options: Mapping[str, Any],
    ) -> None:
        self.recipe, self.seeds, self.folder, self.num_images = recipe, seeds, folder, num_images
        self.asked, self.paths, self.options = asked, asked, options
        self.kinds: list[Kind] = [kind for kind in KINDS if kind == "epochs" or kind in kinds]
        self.results: dict[str, RunResult] = {}
        self.failed: dict[str, str] = {}
        self.data: ImageData | None = None

    # --- arguments ---------------------------------------------------------------------------------------

    def claim(self, write: bool = False) -> None:
        """Check that the folder belongs to this ladder, or does not exist yet.

        Raises:
            ValueError: the folder contains something else.
        """
        check_own(self.folder, "ladder.json", "ladder")
        file = self.folder / "ladder.json"
        mine = _Claim(
            recipe=recipe_to_json(self.recipe),
            seeds=self.seeds,
            asked=self.asked,
            num_images=self.num_images,
            paths=self.paths,
        )
        if file.is_file():
            before = read(file, _Claim)
            before["recipe"] = recipe_to_json(recipe_from_json(before["recipe"]))  # adds the fields of later versions
            for what in ("recipe", "asked", "num_images"):
                if before[what] != json.loads(json.dumps(mine[what])):
                    raise ValueError(f"{self.folder}: {what} in ladder.json is different; choose another --out")
            self.paths = self.paths or before["paths"]
            mine["paths"] = self.paths
            mine["seeds"] = list(dict.fromkeys([*before["seeds"], *self.seeds]))
        if write:
            write_json(file, mine)

    # --- runs --------------------------------------------------------------------------------------------

    def _train(self, recipes: Mapping[str, Recipe]) -> None:
        results, failed = Runs(recipes, self.folder, **self.options).train()
        self.results |= results
        self.failed |= failed

    def _kind(self, kind: Kind) -> dict[str, Recipe]:
        """Return the recipes of the twins of one kind that can be trained now, by the names of their runs."""
        assert self.paths is not None
        if kind == "epochs":
            return {
                run_name(kind, seed, path): twin(self.recipe, path, seed) for seed in self.seeds for path in self.paths
            }
        if kind == "pflop":
            spent = [self.results.get(run_name("epochs", self.seeds[0], path)) for path in self.paths]
            net = self.results.get(run_name(NET, self.seeds[0]))
            known = [result.pflop for result in (net, *spent) if result is not None and result.pflop]
            if len(known) <= len(self.paths):
                LOG.warning(
                    "there are no twins with equal PFLOP: they need all runs of seed %d, and some failed", self.seeds[0]
                )
                return {}
            count = epochs_for(known[0], [pflop / self.recipe.epochs for pflop in known[1:]])
            each_path = dict(zip(self.paths, count, strict=True))
            return {
                run_name(kind, seed, path): twin(self.recipe, path, seed, epochs)
                for seed in self.seeds
                for path, epochs in each_path.items()
            }
        teachers = {seed: run_name("epochs", seed, WHOLE_TEXT) for seed in self.seeds}
        return {
            run_name(kind, seed, path): twin(self.recipe, path, seed, teacher=self.folder / teacher)
            for seed, teacher in teachers.items()
            for path in self.paths
            if path != WHOLE_TEXT and teacher in self.results
        }

    def _opened(self, name: str, seed: int) -> Trained:
        run = FinishedRun(self.folder / name, data=self.data, data_moved=self.options["data_moved"])
        self.data = self.data or run.data
        return Trained(name, seed, self.folder / name, self.data, by="ladder")

    def _exported(self) -> list[str]:
        """Return the paths with which the first seed's network would be exported."""
        run = self._opened(run_name(NET, self.seeds[0]), self.seeds[0])
        named = run.net.named_paths()
        macs = {name: of.macs for name, of in costs(run.net, named, run.image_size).items()}
        chosen = list(named)
        if run.data.validation is not None:
            stats = run.recalibrated(named.values(), self.num_images)
            logits, labels = scored(run.net, named, stats, run.batches("validation"))
            chosen = decide(logits, labels, macs, seed=0).names
        else:
            LOG.warning("there are no held-out images (data.validation), so up to %d of the named paths are used", MOST)
        return evenly(chosen, macs)

    # --- result ------------------------------------------------------------------------------------------

    def result(self, runtime: str | None) -> LadderResult:
        """Do the training and the measurements that are missing, and write the result.

        Raises:
            ValueError: no seed has all its runs finished.
        """
        self._train({run_name(NET, seed): replace(self.recipe, {"seed": seed}) for seed in self.seeds})
        if self.paths is None:
            if run_name(NET, self.seeds[0]) not in self.results:
                raise ValueError(f"paths cannot be chosen, because the run {run_name(NET, self.seeds[0])} failed")
            self.paths = self._exported()
            self.claim(write=True)
        for kind in self.kinds:
            self._train(self._kind(kind))
        complete = [seed for seed in self.seeds if runs_of(seed, self.paths, self.kinds) <= self.results.keys()]
        if not complete:
            told = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise ValueError(f"no seed of this ladder has all runs finished ({told}); run the same command to retry")
        found = collect(
            self.recipe,
            self.folder,
            complete,
            self.paths,
            self.kinds,
            self.results,
            self._opened,
            num_images=self.num_images,
            runtime=runtime,
            failed=self.failed,
        )
        save_figure(ladder_figure(found), self.folder, "figure")
        found.save(self.folder)
        return found
