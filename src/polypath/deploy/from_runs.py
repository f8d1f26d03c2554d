"""Makes a bundle's networks from finished runs, with named or chosen paths, recalibrated on the run's images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.analysis.finished_run import FinishedRun
from polypath.deploy import heldout
from polypath.deploy.bundle import Bundle
from polypath.deploy.candidates import BundleNetwork, HeldOut, check_alike
from polypath.deploy.quantise import Calibration
from polypath.training.recipe import recipe_to_json
from polypath.training.result import read_result

LOG = logging.getLogger(__name__)
MOST = 60  # maximum length of a network's name that is made from folder names


def network_of(
    run: FinishedRun,
    texts: Sequence[str] | None = None,
    *,
    num_images: int | None = None,
    seed: int = 0,
    calibration_images: int | None = None,
) -> BundleNetwork:
    """Return a run's network with recalibrated norms, held-out images, test images and calibration images.

    Args:
        texts: texts or names of paths; None means all named paths.
        num_images: number of training images to recalibrate norms on; None means no recalibration.
        seed: random seed for splitting the held-out images into parts.
        calibration_images: number of training images for int8, chosen at random with the run's seed; None means none.

    Raises:
        ValueError: the run is not finished, a path is illegal, or the images are missing.
    """
    net = run.net
    named = net.named_paths()
    chosen = [named.get(text) or net.paths(text) for text in texts] if texts else list(named.values())
    stats = None if num_images is None else run.recalibrated(chosen, num_images)
    held, images = None, 0 if run.data.validation is None else len(run.data.validation)
    if images >= heldout.FEWEST:
        test = run.batches("test", looks=0)  # count_looks counts these measurements when their number is known
        held = HeldOut(list(run.batches("validation")), test, seed)
    else:
        LOG.warning(
            "%s has %s held-out images (data.validation), but %d are needed: all paths stay, without errors and "
            "calibration",
            *(run.folder, images or "no", heldout.FEWEST),
        )
    calibration = None
    if calibration_images is not None:
        calibration = Calibration.of(run.statistics_batches(), calibration_images, run.recipe.seed)
    return BundleNetwork(net.cpu(), texts, stats, held, about=_about(run), calibration=calibration)


def count_looks(bundle: Bundle, runs: Mapping[str, FinishedRun]) -> None:
    """Add the number of test errors measured for ``bundle`` to the count of each run in ``runs`` (by network name)."""
    for name, run in runs.items():
        paths = [path.name for path in bundle.paths if path.network == name]
        together = [rung for rung in bundle.ladder if len(rung.combine) > 1 and rung.path in paths]
        run.add_looks(len(paths) + len(together))


def notes_of(run: FinishedRun) -> list[str]:
    """Return sentences about a run for a bundle's card."""
    looks = f"Errors measured on its test split before the export: {run.test_evaluations}."
    return [*([run.data.note] if run.data.note else []), looks]


def names_of(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by network name. A network has its folder's name, after parent folders' names if needed.

    Raises:
        ValueError: a folder is given twice.
    """
    places: list[Path] = []
    for folder in folders:
        if (place := folder.resolve()) in places:
            raise ValueError(f"{folder}: this folder is given twice")
        places.append(place)
    parts = [[_plain(part) for part in place.parts[1:]] or ["network"] for place in places]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-depth:])[-MOST:] for part in parts]
        if len({name.casefold() for name in names}) == len(names):
            return dict(zip(names, folders, strict=True))
    return {f"network{i}": folder for i, folder in enumerate(folders, 1)}


def _plain(text: str) -> str:
    return re.sub(r"[^\w=,+-]+", "-", text).strip("-") or "network"


def check_same_runs(runs: Mapping[str, FinishedRun]) -> None:
    """Check, before any work, that runs can be in one bundle.

    Raises:
        ValueError: a run's classes, preparation, held-out or test images differ from those of the first run. The
            message states both runs and the difference.
    """
    check_alike({name: BundleNetwork(run.net) for name, run in runs.items()})
    (first, one), *others = runs.items()
    for name, run in others:
        told = f"network {name!r} cannot be in one bundle with {first!r}: "
        mine, theirs = run.data.validation, one.data.validation
        if (mine is None) != (theirs is None):
            raise ValueError(told + "one of the runs has held-out images (data.validation), and the other has none")
        if mine is not None and theirs is not None and mine.fingerprint() != theirs.fingerprint():
            raise ValueError(f"{told}their held-out images differ ({len(mine):,} and {len(theirs):,} images)")
        if run.data.test.fingerprint() != one.data.test.fingerprint():
            raise ValueError(
                f"{told}their test images differ ({len(run.data.test):,} and {len(one.data.test):,} images)"
            )


def _about(run: FinishedRun) -> dict[str, Any]:
    recipe = recipe_to_json(run.recipe)
    recipe["data"]["source"] = run.data.name  # instead of a folder on this machine
    return {"note": run.data.note, "recipe": recipe, "run": _run_facts(run)}


def _run_facts(run: FinishedRun) -> dict[str, Any]:
    """Return facts about the training itself, such as its revision and seed."""
    try:
        sessions, result = run.run.sessions(), read_result(run.run)
    except ValueError:
        return {"seed": run.recipe.seed}
    keep = ("revision", "torch", "device_name", "threads", "started")
    return {
        "seed": run.recipe.seed,
        "sessions": [{key: session.get(key) for key in keep} for session in sessions],
        "seconds": result.seconds,
        "test_error_of_the_run": result.test_error,
        "test_evaluations_of_the_run": run.test_evaluations,
    }
