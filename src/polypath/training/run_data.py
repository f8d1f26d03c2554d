"""Record and check the images of a run. ``data.json`` in the run's folder has their location and identity.

Every later command reads a run's images through :func:`images_of`. This function rejects images that have changed since
the start of the run. It also rejects another folder that has the same relative path in another working directory.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from polypath.core.display import printable
from polypath.data.config import DataConfig
from polypath.data.identity import Identity, Part, brief, differences
from polypath.data.sources import ImageData, identify, load_images, local_folder
from polypath.data.split import StreamedSplit
from polypath.storage.decode import read
from polypath.storage.files import write_json
from polypath.training.run import DATA, RunFolder

MOVED = "give their folder with --data-moved DIR"


@dataclass(frozen=True)
class RunData:
    """The record of a run's images: ``source`` as in the recipe, its absolute path ``resolved`` (None if the source is
    not a folder), and the ``identity`` of the images."""

    source: str
    resolved: str | None
    identity: dict[str, Part]


def recorded_data(run: Path) -> RunData | None:
    """Read the record of a run's images. Return None for runs of Polypath 0.1, which have no record.

    Raises:
        ValueError: the record is damaged.
    """
    return read(run / DATA, RunData) if (run / DATA).is_file() else None


def record_data(folder: RunFolder, data: ImageData, moved: str | None = None) -> None:
    """Record the identity and the location of the run's images. If ``moved`` is given, this is the new location."""
    source, before = folder.recipe.data.source, recorded_data(folder.path)
    place = local_folder(moved or source)
    identity = dict(before.identity if before else data.identity)
    if before is None or moved is not None:
        write_json(folder.path / DATA, asdict(RunData(source, None if place is None else str(place), identity)))


def images_of(folder: RunFolder, moved: str | None = None, data: ImageData | None = None) -> ImageData:
    """Load the images that a run started with; see :func:`polypath.data.sources.load_images`.

    Args:
        moved: the folder in which the images are now; by default, the recorded folder.
        data: images that are already in memory; they are only checked.

    Raises:
        ValueError: images are missing, or are not those that the run started with; the message states the differences.
    """
    known, config = recorded_data(folder.path), folder.recipe.data
    if data is not None:
        _check(folder, known, data.name, data.identity)
        return data
    place = _place(folder, known, moved)
    found = load_images(located(config, place), accept=functools.partial(_check, folder, known, place or config.source))
    if known is None and local_folder(place or config.source):
        _check_by_checkpoint(folder, found)
    name = Path(known.resolved if known and known.resolved else config.source).name
    return dataclasses.replace(found, name=printable(name)) if place is not None else found


def located(config: DataConfig, place: str | None) -> DataConfig:
    """Return ``config`` with the folder ``place`` as the source, or unchanged if ``place`` is None."""
    return config if place is None else dataclasses.replace(config, source=place)


def check_images(run: Path, place: str, now: Identity) -> None:
    """Check that the images in ``place`` are those of a run.

    Raises:
        ValueError: the images differ; the message states the differences.
    """
    known = recorded_data(run)
    if known is not None and known.identity and now and (told := differences(known.identity, now)):
        raise ValueError(
            f"{run}: the images in {printable(place)} are not those that the run started with ({brief(told)}); "
            f"if the original images are elsewhere, {MOVED}"
        )


def places(runs: Mapping[Path, DataConfig], moved: str | None = None) -> dict[str, str]:
    """Map each ``source`` of related runs that is a folder to the folder that contains the images now.

    This folder is ``moved`` if given, else the folder that the first started run recorded, else the source, relative to
    the working directory. If ``moved`` is given, the records of the started runs are updated.

    Raises:
        ValueError: ``moved`` is given but there are several sources, ``moved`` is not a folder, or the image folder of
            a started run is missing or has other images.
    """
    sources = {config.source for config in runs.values()}
    if moved is not None and len(sources) > 1:
        raise ValueError(f"--data-moved {moved}: the runs must have one source, but have {', '.join(sorted(sources))}")
    if moved is not None and local_folder(moved) is None:
        raise ValueError(f"--data-moved {moved}: no such folder")
    begun = {run: known for run in runs if (known := recorded_data(run)) is not None}
    found: dict[str, str | None] = {}
    for run, known in begun.items():
        if moved is None and known.resolved is not None:
            _check_there(run, known.source, known.resolved)
        found.setdefault(known.source, known.resolved)
    for source in sources:
        here = local_folder(moved or found.get(source) or source)
        found[source] = None if here is None else str(here)
    seen: dict[DataConfig, Identity] = {}
    for run, known in begun.items():
        config = located(runs[run], found[known.source])
        if config not in seen:
            seen[config] = identify(config)
        check_images(run, config.source, seen[config])
        if moved is not None:
            write_json(run / DATA, asdict(dataclasses.replace(known, resolved=found[known.source])))
    return {source: place for source, place in found.items() if place is not None}


def same_training_images(known: str, data: ImageData, recorded: bool) -> bool:
    """Return whether a checkpoint was trained on ``data``. ``known`` is the fingerprint of the checkpoint's training
    images.

    For large streamed datasets, a fingerprint contains modification times. If the run has ``recorded`` its images, they
    are already checked. Then only the selection of training images and their labels are compared.
    """
    now = data.fingerprint
    if recorded and isinstance(data.train, StreamedSplit):
        known, now = (text.rpartition("/")[2] for text in (known, now))
    return known == now


def _check(folder: RunFolder, known: RunData | None, place: str, now: Identity) -> None:
    if known is not None:
        check_images(folder.path, place, now)


def _place(folder: RunFolder, known: RunData | None, moved: str | None) -> str | None:
    """Return the folder to read a run's images from, or None for the recipe's source."""
    source = folder.recipe.data.source
    if moved is not None:
        if known is not None and known.resolved is None:
            raise ValueError(
                f"--data-moved {moved}: the images of {folder.path} are from {source!r}, which is not a folder"
            )
        if (found := local_folder(moved)) is None:
            raise ValueError(f"--data-moved {moved}: no such folder")
        return str(found)
    if known is None or known.resolved is None:
        return None
    _check_there(folder.path, source, known.resolved)
    return known.resolved


def _check_there(run: Path, source: str, resolved: str) -> None:
    if local_folder(resolved) is None:
        given = "" if resolved == source else f" (given as {source!r})"
        raise ValueError(f"{run}: the images were in {printable(resolved)}{given}, but this folder is missing; {MOVED}")


def _check_by_checkpoint(folder: RunFolder, data: ImageData) -> None:
    """Check the images by the fingerprint in the newest checkpoint. Runs of Polypath 0.1 have no other record of their
    images."""
    steps = folder.checkpoints.steps()
    try:
        known = folder.checkpoints.load(steps[-1]).state.get("data") if steps else None
    except ValueError:
        return
    if known is not None and known != data.fingerprint:
        raise ValueError(
            f"{folder.path}: the training images in {data.name} are not those that the run started with; "
            f"if the original images are elsewhere, {MOVED}"
        )
