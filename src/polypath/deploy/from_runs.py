"""Finished runs as networks of a bundle: named or chosen paths, recalibrated and scored on the run's images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.analysis.finished_run import FinishedRun
from polypath.deploy.bundle import Bundle
from polypath.deploy.candidates import BundleNetwork, HeldOut, check_alike
from polypath.deploy.quantise import Calibration
from polypath.training.recipe import recipe_to_json
from polypath.training.result import read_result

LOG = logging.getLogger(__name__)
MOST = 60  # characters of a network's name that is made of folders


def network_of(
    run: FinishedRun,
    texts: Sequence[str] | None = None,
    *,
    num_images: int | None = None,
    seed: int = 0,
    calibration_images: int | None = None,
) -> BundleNetwork:
    """A run's network with its recalibrated norms, its held-out and test images, and its calibration images.

    Args:
        texts: choices of paths; None takes all named ones.
        num_images: training images to recalibrate norms on; None leaves them.
        seed: of the split of held-out images into parts.
        calibration_images: training images for int8, drawn by the run's seed; None takes none.

    Raises:
        ValueError: an unfinished run, an illegal path, missing images.
    """
    net = run.net
    named = net.named_paths()
    chosen = [named.get(text) or net.paths(text) for text in texts] if texts else list(named.values())
    stats = None if num_images is None else run.recalibrated(chosen, num_images)
    held = None
    if run.data.validation is not None:
        test = run.batches("test", looks=0)  # counted when the bundle is written and their number is known
        held = HeldOut(list(run.batches("validation")), test, seed)
    else:
        LOG.warning(
            "%s held no images out (data.validation), so nothing is calibrated and no path has an error", run.folder
        )
    calibration = None
    if calibration_images is not None:
        calibration = Calibration.of(run.statistics_batches(), calibration_images, run.recipe.seed)
    return BundleNetwork(net.cpu(), texts, stats, held, about=_about(run), calibration=calibration)


def count_looks(bundle: Bundle, runs: Mapping[str, FinishedRun]) -> None:
    """Add the errors on test images that writing a bundle measured to each run's count; ``runs`` by network name."""
    for name, run in runs.items():
        paths = [path.name for path in bundle.paths if path.network == name]
        together = [rung for rung in bundle.ladder if len(rung.combine) > 1 and rung.path in paths]
        run.add_looks(len(paths) + len(together))


def notes_of(run: FinishedRun) -> list[str]:
    """Sentences for a bundle's card."""
    looks = f"Errors measured on its test split before the export: {run.test_evaluations}."
    return [*([run.data.note] if run.data.note else []), looks]


def names_of(folders: Sequence[Path]) -> dict[str, Path]:
    """Networks' names from their folders' names, preceded by those of parent folders where they are equal.

    Raises:
        ValueError: the same folder twice.
    """
    places: list[Path] = []
    for folder in folders:
        if (place := folder.resolve()) in places:
            raise ValueError(f"{folder}: given twice")
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
        ValueError: classes, preparation, held-out or test images differ from the first run's. The message names both
            runs and what differs.
    """
    check_alike({name: BundleNetwork(run.net) for name, run in runs.items()})
    (first, one), *others = runs.items()
    for name, run in others:
        told = f"network {name!r} cannot be in one bundle with {first!r}: "
        mine, theirs = run.data.validation, one.data.validation
        if (mine is None) != (theirs is None):
            raise ValueError(told + "one of the runs held images out (data.validation), and the other did not")
        if mine is not None and theirs is not None and mine.fingerprint() != theirs.fingerprint():
            raise ValueError(f"{told}their runs held out different images ({len(mine):,} and {len(theirs):,})")
        if run.data.test.fingerprint() != one.data.test.fingerprint():
            raise ValueError(f"{told}their test images differ ({len(run.data.test):,} and {len(one.data.test):,})")


def _about(run: FinishedRun) -> dict[str, Any]:
    recipe = recipe_to_json(run.recipe)
    recipe["data"]["source"] = run.data.name  # not a folder of this machine
    return {"note": run.data.note, "recipe": recipe, "run": _run_facts(run)}


def _run_facts(run: FinishedRun) -> dict[str, Any]:
    """Revision and seed of the training itself."""
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
