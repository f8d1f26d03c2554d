"""Defines the result of a ladder, and writes it as JSON, CSV and text."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polypath.storage.decode import read_result
from polypath.storage.files import write_file, write_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Tax:
    """A tax: the test error of paths in the shared network minus that of their twins of one kind, in points.

    Attributes:
        tax: error in the network (recalibrated) minus error of the twin, averaged over the seeds.
        low, high: ends of the two-sided 95% bootstrap interval over seeds and images (with one seed, over images only).
            Network and twins use the same resampled seeds and images.
        most: the one-sided 95% upper bound over seeds and images.
    """

    tax: float
    low: float
    high: float
    most: float


@dataclass(frozen=True, kw_only=True)
class TwinRow(Tax):
    """The results of a path's twins of one kind: their mean ``error`` in percent, the ``errors`` for each seed, their
    ``epochs``, and their mean ``pflop`` of training, including the teacher's forward passes."""

    error: float
    errors: tuple[float, ...]
    epochs: int
    pflop: float


@dataclass(frozen=True, kw_only=True)
class LadderRow:
    """The results of one path.

    Attributes:
        name, paths: the path's name in the request, and its canonical text.
        error, error_own: mean test error in percent in the network, with batch-norm recalibrated for the path, and with
            the network's own statistics.
        errors: the recalibrated error for each seed.
        macs, params, bytes: multiply-adds for one image; number of parameters and float32 size in bytes of the path as
            a standalone network.
        shared: the share of the path's parameters that other paths in the table, except the whole, also use.
        p50_ms, p95_ms: milliseconds in the runtime if the same path ran just before.
        switch_ms: additional milliseconds if another path ran just before (difference of medians).
        alone: results of the twins, by kind.
    """

    name: str
    paths: str
    error: float
    error_own: float
    errors: tuple[float, ...]
    macs: int
    params: int
    bytes: int
    shared: float
    p50_ms: float | None = None
    p95_ms: float | None = None
    switch_ms: float | None = None
    alone: dict[str, TwinRow] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LadderResult:
    """The result of a ladder: one network, compared with its paths trained alone.

    Attributes:
        recipe: recipe of the network, as JSON values.
        seeds: seeds of the runs.
        rows: one row for each path, cheapest first.
        tax: mean tax over the paths, by kind of twin.
        pflop: training cost of the ``net`` and, by kind, of all twins together, averaged over the seeds.
        bytes: size of the weights of the network, which has all paths, and of all twins.
        data, note, images: name of the test images, a note on them, and their number.
        recalibrated: number of training images on which batch-norm was recalibrated.
        test_evaluations: number of errors that any command has measured on the test split for these runs.
        runtime: the conditions of the measurements, and ``memory`` in MiB: of the one network with all paths loaded,
            and of all twins. None if nothing was measured.
        environment: device, instructions, versions and revision.
        failed: names of failed runs, with the reasons. Rows lack the results that need these runs.
    """

    recipe: dict[str, Any]
    seeds: tuple[int, ...]
    rows: tuple[LadderRow, ...]
    tax: dict[str, Tax]
    pflop: dict[str, float]
    bytes: dict[str, int]
    data: str
    note: str
    images: int
    recalibrated: int
    test_evaluations: int
    runtime: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.recipe["name"])

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.tax)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def to_csv(self) -> str:
        """Return CSV with a line for each path and kind of twin."""
        text = io.StringIO()
        plain = ["name", "paths", "error", "error_own", "macs", "params", "bytes", "shared", "p50_ms", "switch_ms"]
        twin = ["error", "epochs", "pflop", "tax", "low", "high", "most"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*plain, "kind", *(f"alone_{name}" if name == "error" else name for name in twin)])
        for row in self.rows:
            for kind, of in row.alone.items():
                writer.writerow([*(getattr(row, n) for n in plain), kind, *(getattr(of, n) for n in twin)])
        return text.getvalue()

    def facts(self) -> list[str]:
        """Return the lines below the table."""
        cost = ", ".join(f"{kind} {pflop:.4g}" for kind, pflop in self.pflop.items())
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        lines = [
            f"{self.images:,} test images of {self.data}, {seeds}; batch-norm recalibrated on {self.recalibrated:,} "
            f"training images; {self.test_evaluations} evaluations on the test split",
            f"PFLOP of training, mean over the seeds: {cost}",
            f"weights of all paths: {self.bytes['net'] / 2**20:.2f} MiB, twins {self.bytes['twins'] / 2**20:.2f}",
        ]
        for kind, of in self.tax.items():
            lines.append(f"mean tax ({kind}): {_signed(of)}, with 95% confidence at most {of.most:+.2f}")
        if self.runtime is not None:
            memory = {name: f"{mib:.1f} MiB" for name, mib in (self.runtime["memory"] or {}).items()}
            lines.append(
                f"{self.runtime['name']} {self.runtime['version']}, {self.runtime['threads']} threads, one image"
                + (f"; all paths loaded: {memory['net']}, all twins: {memory['twins']}" if memory else "")
                + ("; the machine was busy" if self.runtime["busy"] else "")
            )
        return [*lines, *([self.note] if self.note else []), *(f"failed: {n}: {why}" for n, why in self.failed.items())]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows of the table as text."""
        head = ["path", "own %", "error %", *(f"{kind} %" for kind in self.kinds), *(f"tax, {k}" for k in self.kinds)]
        head += ["MACs", "MiB", "shared", "ms", "switch ms"]
        rows = []
        for row in self.rows:
            cells = [row.name, f"{row.error_own:.2f}", f"{row.error:.2f}"]
            cells += [f"{row.alone[k].error:.2f}" if k in row.alone else "–" for k in self.kinds]
            cells += [_signed(row.alone[k]) if k in row.alone else "–" for k in self.kinds]
            cells += [f"{row.macs / 1e6:.2f} M", f"{row.bytes / 2**20:.2f}", f"{row.shared:.0%}"]
            rows.append([*cells, _number(row.p50_ms), _number(row.switch_ms)])
        return head, rows

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``result.json`` and ``result.csv``."""
        write_file(Path(folder) / "result.csv", self.to_csv())
        write_json(Path(folder) / "result.json", self.to_json())


def load_ladder(folder: str | os.PathLike[str]) -> LadderResult:
    """Load a result written by :meth:`LadderResult.save`.

    Raises:
        ValueError: the result is missing, is damaged, or was written by a later version.
    """
    return read_result(Path(folder) / "result.json", LadderResult, FORMAT, "ladder")


def _signed(tax: Tax) -> str:
    return f"{tax.tax:+.2f} [{tax.low:+.2f}, {tax.high:+.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
