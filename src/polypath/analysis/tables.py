"""The path table of a run: error and cost of every named path and of rival networks, as CSV, JSON and a figure."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from polypath.analysis.plots.paths import path_figure
from polypath.analysis.plots.style import save_figure
from polypath.analysis.scoring import PathRow, score
from polypath.core.batchnorm import BatchNormStatistics, statistics_note
from polypath.core.display import html_table, short_macs
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate
from polypath.profiling.cost import costs
from polypath.profiling.latency import latencies
from polypath.storage.decode import decode
from polypath.storage.files import write_file, write_json

Loaded = Iterable[Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network for a path table, and the images to score it on.

    Attributes:
        name: the name of the network's run.
        net: the network, on the device for scoring and timing.
        paths: the choices to score, by name.
        test: batches of ``(images, labels)`` to score the paths on.
        train: batches of training images without augmentation, in random order; used only to recalibrate.
        size: height and width of the images that the network reads, in pixels.
        views: number of crops of each image in ``test`` (10 with ten crops).
    """

    name: str
    net: PathNet
    paths: Mapping[str, Paths]
    test: Loaded
    train: Loaded = ()
    size: tuple[int, int]
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class PathTable:
    """A table with the paths of a run and of its rivals, and the conditions of the measurement.

    Attributes:
        run: the run's name.
        rows: one row for each path, the whole network first.
        rivals: rows of other runs by the runs' names.
        data: name of the data set.
        images: number of scored images of ``split``.
        note: caveats about the data.
        recalibrated: number of training images and seed of the recalibrated statistics; None if not recalibrated.
        measured: device, threads, torch version, repeats, image size and batch size of the latencies.
        test_evaluations: number of errors measured on the run's test split so far, including this table's errors. None
            in tables of versions that did not count them.
    """

    run: str
    rows: list[PathRow]
    rivals: dict[str, list[PathRow]] = field(default_factory=dict)
    data: str
    split: str = "test"
    images: int
    note: str = ""
    recalibrated: dict[str, int | None] | None = None
    measured: dict[str, Any]
    test_evaluations: int | None = None

    def __repr__(self) -> str:
        rivals = f", {len(self.rivals)} rival{'s' * (len(self.rivals) > 1)}" if self.rivals else ""
        images = f"{self.images:,} {self.split} images of {self.data}"
        return f"PathTable({self.run!r}, {len(self.rows)} paths{rivals}, {images})"

    def _repr_html_(self) -> str:
        head = ["path", "error %", "recalibrated %", "MACs", "parameters", "depth", "p50 ms", "p95 ms"]
        rows = []
        for run, of_run in self.runs.items():
            for row in of_run:
                name = row.name if run == self.run else f"{run}: {row.name}"
                spent = [short_macs(row.macs), f"{row.params:,}", str(row.depth)]
                errors, times = (row.error, row.error_recalibrated), (row.p50_ms, row.p95_ms)
                rows.append([name, *map(_number, errors), *spent, *map(_number, times)])
        return html_table(f"{self.run}: {self.facts()}", head, rows)

    @property
    def runs(self) -> dict[str, list[PathRow]]:
        return {self.run: self.rows, **self.rivals}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PathTable:
        """Return the table from the output of :meth:`to_json`.

        Raises:
            ValueError: a field is missing, unknown or of a wrong type.
        """
        return decode(values, cls, "path table")

    def to_csv(self) -> str:
        """Return CSV with a line for each row. The first column is the run."""
        text = io.StringIO()
        names = [f.name for f in fields(PathRow)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["run", *names])
        for run, rows in self.runs.items():
            writer.writerows([run, *(getattr(row, name) for name in names)] for row in rows)
        return text.getvalue()

    def facts(self) -> str:
        """Return the conditions of the measurement, in one line."""
        m = self.measured
        height, width = m["size"]
        threads = f"{m['threads']} thread{'s' if m['threads'] != 1 else ''}"
        looks = "" if self.test_evaluations is None else f", {self.test_evaluations} evaluations on them so far"
        return (
            f"{self.images:,} {self.split} images of {self.data}{looks}; {statistics_note(self.recalibrated)}; "
            f"latency: {m['device']}, {threads}, torch {m['torch']}, float32, "
            f"batch {m['batch_size']}, {height}×{width} pixels, {m['repeats']} repeats"
        )

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``paths.csv``, ``paths.json``, ``paths.png`` and ``paths.svg``, each atomically."""
        folder = Path(folder)
        write_file(folder / "paths.csv", self.to_csv())
        write_json(folder / "paths.json", self.to_json())
        title = self.run + (f" ({self.note})" if self.note else "")
        drawn = save_figure(path_figure(self.runs, title=title, footnote=self.facts()), folder, "paths")
        return [folder / "paths.csv", folder / "paths.json", *drawn]


def path_table(
    subject: Subject,
    rivals: Sequence[Subject] = (),
    *,
    data: str,
    note: str = "",
    num_images: int | None = None,
    seed: int = 0,
    repeats: int = 50,
) -> tuple[PathTable, BatchNormStatistics | None]:
    """Measure error, cost and latency of every path of ``subject`` and its ``rivals``. Latencies of all paths are
    measured alternately, at batch size 1.

    With ``num_images``, batch-norm is also recalibrated for each path on that many training images. Return the table,
    and the recalibrated statistics of ``subject`` (None without ``num_images``). ``seed`` is the seed that shuffled
    ``subject.train``.

    Raises:
        ValueError: two subjects have the same name, their test sets have different lengths, there are no images, or a
            label is not a class of a network.
    """
    subjects = [subject, *rivals]
    names = [s.name for s in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} is in the table twice: all networks must have different names")
    rows, own = {}, None
    images = {}
    for s in subjects:
        stats = None
        if num_images is not None:
            stats = recalibrate(s.net, s.paths.values(), s.train, num_images, seed=seed)
        if s is subject:
            own = stats
        rows[s.name], images[s.name] = _rows(s, stats)
    if other := [name for name in names if images[name] != images[subject.name]]:
        raise ValueError(
            f"{other[0]!r} is scored on {images[other[0]]} test images, {subject.name!r} on {images[subject.name]}: "
            "all networks in a table must be scored on the same images"
        )
    times = _times(subjects, repeats)
    timed = {name: [_timed(row, times[name, row.name]) for row in of_run] for name, of_run in rows.items()}
    first = times[subject.name, next(iter(subject.paths))]
    measured = {k: v for k, v in asdict(first).items() if not k.endswith("_ms")} | {"size": list(first.size)}
    table = PathTable(
        run=subject.name,
        rows=timed.pop(subject.name),
        rivals=timed,
        data=data,
        images=images[subject.name],
        note=note,
        recalibrated=own.record if own is not None else None,
        measured=measured,
    )
    return table, own


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _rows(s: Subject, stats: BatchNormStatistics | None) -> tuple[list[PathRow], int]:
    plain = score(s.net, s.paths, s.test, views=s.views)
    better = score(s.net, s.paths, s.test, stats=stats, views=s.views) if stats is not None else None
    spent = costs(s.net, s.paths, s.size)
    rows = [
        PathRow(
            name=name,
            paths=str(p),
            error=plain[name].error,
            error_recalibrated=better[name].error if better is not None else None,
            params=spent[name].params,
            macs=spent[name].macs,
            activation_bytes=spent[name].activation_bytes,
            depth=s.net.wiring.longest(p),
        )
        for name, p in s.paths.items()
    ]
    return rows, plain[rows[0].name].images


def _times(subjects: Sequence[Subject], repeats: int) -> dict[tuple[str, str], Any]:
    """Measure the latencies of all subjects' paths, by (run, path). Paths of rivals run as extracted networks."""
    first, *rivals = subjects
    others = {(s.name, name): extract(s.net, p) for s in rivals for name, p in s.paths.items()}
    keys = {"\n".join(key): key for key in others}
    found = latencies(
        first.net,
        first.paths,
        first.size,
        repeats=repeats,
        rivals={text: others[key] for text, key in keys.items()},
    )
    return {keys.get(name, (first.name, name)): latency for name, latency in found.items()}


def _timed(row: PathRow, latency: Any) -> PathRow:
    return replace(row, p50_ms=round(latency.p50_ms, 4), p95_ms=round(latency.p95_ms, 4))
