"""Helpers for the subcommands that read a finished run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.analysis.finished_run import FinishedRun
from polypath.analysis.tables import Subject
from polypath.cli.tables import watched
from polypath.core.paths import WHOLE_TEXT, Paths

STATISTICS = "statistics.safetensors"


def texts_of(folder: Path, texts: Sequence[str]) -> list[str]:
    """Return the requested choices, with ``found`` replaced by the choices that a search of the run found.

    Raises:
        ValueError: the run was not searched, or the search belongs to another network.
    """
    from polypath.search.result import FOUND, found_paths

    expanded = [found_paths(folder) if text.strip() == FOUND else [text] for text in texts]
    return list(dict.fromkeys(itertools.chain.from_iterable(expanded)))


def paths_of(run: FinishedRun, texts: Sequence[str] | None) -> dict[str, Paths]:
    """Return the requested choices of a run's network or, by default, the named ones. The whole network is first.

    Raises:
        ValueError: as for :func:`texts_of`, or a choice is illegal.
    """
    if not texts:
        return run.net.named_paths()
    chosen = {text: run.net.paths(text) for text in texts_of(run.folder, texts)}
    return {WHOLE_TEXT: Paths()} | {text: p for text, p in chosen.items() if p}


def subject(run: FinishedRun, paths: Mapping[str, Paths] | None = None) -> Subject:
    """Return a run as a subject for :func:`polypath.analysis.tables.path_table`, with a progress bar. The default of
    ``paths`` is the run's named paths."""
    paths = run.net.named_paths() if paths is None else paths
    test = run.batches("test", looks=len(paths))
    return Subject(
        name=run.name,
        net=run.net,
        paths=paths,
        test=Watched(test, f"scoring {run.name}"),
        train=run.statistics_batches(),
        size=run.image_size,
        views=test.views,
    )


class Watched:
    """A wrapper of batches that shows a progress bar at each iteration over them."""

    def __init__(self, batches: Any, what: str) -> None:
        self.batches, self.what = batches, what

    def __iter__(self):
        return iter(watched(self.batches, self.what, len(self.batches)))
