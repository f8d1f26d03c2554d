"""Caches the intermediate results of a search in a folder, so that an interrupted search can be resumed."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.paths import Paths
from polypath.reproduce.measured import packed, unpacked
from polypath.storage.digests import json_digest
from polypath.storage.files import read_json, remove, write_file, write_json

FOLDER = "search.parts"
LOG = logging.getLogger(__name__)


class Parts:
    """A store for the intermediate results of one search. The results of another search in the folder are removed.

    Args:
        folder: the run's folder.
        claim: everything that the results depend on, as JSON values.
    """

    def __init__(self, folder: Path, claim: dict[str, Any]) -> None:
        self.folder = folder / FOLDER
        file = self.folder / "claim.json"
        try:
            known = read_json(file)
        except ValueError:
            known = None
        if known != claim:
            if known is not None:
                LOG.info("%s: removed the intermediate results of another search", self.folder)
            self.remove()
            self.folder.mkdir()
            write_json(file, claim)

    def remove(self) -> None:
        """Remove all intermediate results."""
        if self.folder.exists():
            remove(self.folder)

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the JSON value called ``name`` from its file. If there is no such file, call ``make``, write the
        result and return it."""
        file = self.folder / f"{name}.json"
        try:
            return read_json(file)
        except ValueError:
            write_json(file, found := make())
            return found

    def answers(self, name: str, chunk: int, choices: Sequence[Paths]) -> NDArray[np.bool_] | None:
        """Read for each choice and each image of a chunk whether the answer is correct, ``(choices, images)``. Return
        None if this is not stored."""
        try:
            bits, rest = unpacked(self._file(name, choices, chunk))
        except (OSError, ValueError):
            return None
        return bits["right"] if rest == {"choices": len(choices)} else None

    def keep_answers(self, name: str, chunk: int, choices: Sequence[Paths], right: NDArray[np.bool_]) -> None:
        """Store for each choice and each image of a chunk whether the answer is correct. :meth:`answers` reads this."""
        write_file(self._file(name, choices, chunk), packed({"right": right}, {"choices": len(choices)}))

    def statistics(self, choices: Sequence[Paths], make: Callable[[], BatchNormStatistics]) -> BatchNormStatistics:
        """Return the batch-norm statistics of some choices from their file. If there is no such file, call ``make``,
        write the result and return it. Tensors that several choices share stay shared."""
        file = self._file("statistics", choices)
        try:
            return _loaded(file.read_bytes(), choices)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            write_file(file, _saved(found := make(), choices))
            return found

    def _file(self, name: str, choices: Sequence[Paths], chunk: int | None = None) -> Path:
        which = json_digest([str(choice) for choice in choices])[:16]
        return self.folder / f"{name}-{which}{'' if chunk is None else f'-{chunk:04d}'}.npz"


def _saved(stats: BatchNormStatistics, choices: Sequence[Paths]) -> bytes:
    """Serialise statistics. Each tensor is written once. An index gives the tensor of each choice for each norm."""
    names = list(dict.fromkeys(name for choice in choices for name in stats[choice]))
    unique: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    places: dict[int, int] = {}
    which = np.full((len(choices), len(names)), -1, np.int64)
    for k, choice in enumerate(choices):
        for i, name in enumerate(names):
            if name in stats[choice]:
                pair = stats[choice][name]
                place = places.setdefault(id(pair[0]), len(places))
                unique[place], which[k, i] = pair, place
    flat = [torch.stack(pair).float().cpu().numpy() for pair in unique.values()]
    stream = io.BytesIO()
    np.savez(
        stream,
        allow_pickle=False,
        which=which,
        widths=np.array([pair.shape[1] for pair in flat], np.int64),
        values=np.concatenate([pair.reshape(-1) for pair in flat] or [np.empty(0, np.float32)]),
        names=np.array(names, np.str_),
        about=np.array([stats.images, 0 if stats.seed is None else stats.seed, stats.seed is not None], np.int64),
    )
    return stream.getvalue()


def _loaded(data: bytes, choices: Sequence[Paths]) -> BatchNormStatistics:
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        which, widths, values = held["which"], held["widths"], torch.from_numpy(held["values"])
        names, (images, seed, seeded) = held["names"].tolist(), held["about"].tolist()
    pairs = []
    for part, width in zip(values.split((2 * widths).tolist()), widths.tolist(), strict=True):
        mean, var = part.view(2, width)
        pairs.append((mean, var))
    banks = {
        choice: {name: pairs[i] for name, i in zip(names, row, strict=True) if i >= 0}
        for choice, row in zip(choices, which.tolist(), strict=True)
    }
    return BatchNormStatistics(banks, images, seed if seeded else None)
