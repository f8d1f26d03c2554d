"""What the subcommands that look at a finished run share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polypath.analysis.finished_run import FinishedRun
from polypath.analysis.tables import Subject
from polypath.cli.tables import watched
from polypath.core.paths import Paths

STATISTICS = "statistics.safetensors"


def subject(run: FinishedRun, paths: Mapping[str, Paths] | None = None) -> Subject:
    """A run for :func:`polypath.analysis.tables.path_table`, with a progress bar; by default with the named paths."""
    test = run.batches("test")
    return Subject(
        name=run.name,
        net=run.net,
        paths=run.net.named_paths() if paths is None else paths,
        test=Watched(test, f"scoring {run.name}"),
        train=run.statistics_batches(),
        size=run.image_size,
        views=test.views,
    )


class Watched:
    """Batches with a progress bar, as often as they are gone through."""

    def __init__(self, batches: Any, what: str) -> None:
        self.batches, self.what = batches, what

    def __iter__(self):
        return iter(watched(self.batches, self.what, len(self.batches)))
