"""Defines the result of a search, writes and reads it as ``search.json``, and checks that it fits the run's network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from polypath.core.display import short_macs
from polypath.storage.decode import read_result
from polypath.storage.digests import file_digest
from polypath.storage.files import write_json
from polypath.storage.layout import WEIGHTS
from polypath.training.build import MODEL

FORMAT, NAME = 1, "search.json"
FOUND = "found"
"""The text that selects the found paths."""
Method = Literal["exhaustive", "beam"]


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """One path in the result of a search.

    Attributes:
        paths: the path's canonical text.
        search_error: error in percent on the held-out images used to choose paths.
        confirm_error: error in percent on the other half of the held-out images.
        test_error: error in percent on the test split, or None if it was not requested.
        macs: multiply-adds for one image.
        predicted_ms, ms: milliseconds that the model of times predicts, and milliseconds measured together with all
            other rows. Both are None if the search used MACs instead of times.
    """

    paths: str
    search_error: float
    confirm_error: float
    macs: int
    test_error: float | None = None
    predicted_ms: float | None = None
    ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A comparison of the found paths with other paths by hypervolume, which is the dominated share of a box of log
    cost and error.

    Attributes:
        images: the images on which errors are measured, ``confirm`` or ``test``.
        found, other: hypervolume of the found paths, and of the other paths.
        difference: found minus other. ``low`` and ``high`` are the ends of its 95% bootstrap interval over images.
    """

    images: str
    found: float
    other: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Regret:
    """The hypervolume that a beam search missed, on the search images. ``found`` is the hypervolume of all choices
    minus the hypervolume of the choices that the beam search evaluated. ``drawn`` is the same for the random choices.
    ``choices`` is the number of all choices."""

    choices: int
    found: float
    drawn: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Attributes:
        run, data: names of the run and of the data.
        model: SHA-256 of the network's weights.
        revision: revision of the code that searched.
        method, told: the method, and its description as logged at the start.
        asked: the arguments that the result depends on, including the seed.
        choices: number of choices of the network, as text, since JSON readers differ on integers above 2^53.
        evaluated: number of choices that were evaluated.
        macs: multiply-adds of the search, with recalibration but without ``confirm`` and test images.
        images: number of images used to ``search``, to ``confirm`` and to ``test``.
        statistics: the batch-norm statistics used to choose and to confirm. Each is given as the number of training
            images for recalibration, or None for the network's own statistics.
        found: rows of the front that was found, cheapest first.
        named: rows of the named paths in which no gate decides, cheapest first.
        drawn: rows of the front of as many random choices, cheapest first. It is empty if all choices were evaluated.
        gains: gains of the found paths over the ``named`` and over the ``drawn`` paths.
        regret: see :class:`Regret`. It is None if it was not requested.
        latency: fields of the model of times (:class:`polypath.search.latency.LatencyModel`) and the ``runtime`` in
            which times were measured. It is None if the search used MACs instead of times.
        test_evaluations: number of errors that were measured on the test split.
        environment: device and versions.
    """

    run: str
    data: str
    model: str
    revision: str | None
    method: Method
    told: str
    asked: dict[str, Any]
    choices: str
    evaluated: int
    macs: int
    images: dict[str, int]
    statistics: dict[str, int | None]
    found: tuple[SearchRow, ...]
    named: tuple[SearchRow, ...]
    drawn: tuple[SearchRow, ...] = ()
    gains: dict[str, tuple[Gain, ...]] = field(default_factory=dict)
    regret: Regret | None = None
    latency: dict[str, Any] | None = None
    test_evaluations: int = 0
    environment: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def save(self, folder: Path) -> Path:
        """Write ``search.json``."""
        write_json(folder / NAME, self.to_json())
        return folder / NAME

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows of the printed table, as text."""
        head = ["path", "search %", "confirm %", "test %", "MACs", "predicted ms", "ms"]
        rows = []
        for name in ("found", "named", "drawn"):
            for row in getattr(self, name):
                errors = [_number(row.search_error), _number(row.confirm_error), _number(row.test_error)]
                rows.append(
                    [f"{name}: {row.paths}", *errors, short_macs(row.macs), _number(row.predicted_ms), _number(row.ms)]
                )
        return head, rows

    def facts(self) -> list[str]:
        """Return the lines below the table."""
        parts = ", ".join(f"{count:,} {part}" for part, count in self.images.items())
        how = {name: "as trained" if n is None else f"recalibrated on {n:,}" for name, n in self.statistics.items()}
        lines = [
            f"{self.told}; {self.evaluated:,} evaluated",
            f"images of {self.data}: {parts}; batch-norm {how['search']} to search, {how['confirm']} to confirm",
        ]
        if self.latency is not None:
            m, runtime = self.latency, self.latency["runtime"]
            lines.append(
                f"{runtime['name']} {runtime['version']}, {runtime['threads']} threads, one image; model of times "
                f"fitted to {m['fitted']} paths, off by {m['error']:.1f}% on average and {m['worst']:.1f}% at most on "
                f"{m['held_back']} other paths" + ("; the machine was busy" if runtime["busy"] else "")
            )
        for other, gains in self.gains.items():
            lines += [
                f"hypervolume on {g.images} images: found {g.found:.4f}, {other} {g.other:.4f}, difference "
                f"{g.difference:+.4f} [{g.low:+.4f}, {g.high:+.4f}]"
                for g in gains
            ]
        if self.regret is not None:
            r = self.regret
            lines.append(
                f"regret (lost hypervolume) against all {r.choices:,} choices on search images: {r.found:.4f}; of the "
                f"drawn choices {r.drawn:.4f}"
            )
        return lines


def load_search(folder: Path) -> SearchResult:
    """Read the result of a search from a run's folder.

    Raises:
        ValueError: there is no result, or its file is damaged.
    """
    file = folder / NAME
    if not file.is_file():
        raise ValueError(f"{folder}: no paths have been found yet; `polypath search {folder}` looks for them")
    return read_result(file, SearchResult, FORMAT, "search", f"; `polypath search {folder}` writes it again")


def found_paths(folder: Path) -> list[str]:
    """Return the texts of the paths that were found in a run's network, cheapest first.

    Raises:
        ValueError: there is no result, its file is damaged, or it belongs to an earlier network of the run.
    """
    result, now = load_search(folder), weights_digest(folder)
    if result.model != now:
        raise ValueError(
            f"{folder / NAME}: belongs to another checkpoint ({result.model[:12]}) than the run's network "
            f"({now[:12]}); `polypath search {folder}` searches the run's network"
        )
    return [row.paths for row in result.found]


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights of a run's network."""
    return file_digest(folder / MODEL / WEIGHTS)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
