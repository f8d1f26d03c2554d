"""Defines the result of a bench by the protocol, and writes it as JSON, CSV and text."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polypath.analysis.deadline import Interval
from polypath.storage.decode import read_result
from polypath.storage.files import write_file, write_json
from polypath.worth.compare import WAYS, Compared
from polypath.worth.method import stated

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class MethodResult(Compared):
    """A method's results, with its name, its digest and the ``pflop`` of its training (None if the method does not
    state them)."""

    name: str
    digest: str
    pflop: float | None


@dataclass(frozen=True, kw_only=True)
class AnytimeResult:
    """The result of a bench: a comparison of methods.

    Attributes:
        protocol: version of the protocol.
        departures: deviations from the protocol; empty if there are none.
        data, note, digests, images: name of the images, a note on them, their digests, and the number of test images.
        requests: number of requests of the trace.
        unit_ms: the unit of the trace's budgets, in milliseconds. It is the median time of the reference network.
        busy: whether something disturbed the times that were measured without a neighbour.
        methods: results of the methods, in the order of the call. Gains are differences from the first method.
        test_evaluations: for each method, the number of errors measured on these test images in this folder.
        machine, environment: the conditions for which the times are valid.
    """

    protocol: str
    departures: list[str]
    data: str
    note: str
    digests: dict[str, str]
    images: int
    requests: int
    unit_ms: float
    busy: bool
    methods: list[MethodResult]
    test_evaluations: dict[str, int]
    machine: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def to_csv(self) -> str:
        """Return CSV with a line for each option of each method. All lines of a method repeat the method's results."""
        text = io.StringIO()
        own = ["name", "error", "p50_ms", "p99_ms", "busy_p50_ms", "busy_p99_ms", "used"]
        ends = [f"{name}{end}" for name in ("hypervolume", *WAYS) for end in ("", "_low", "_high")]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", *("option" if n == "name" else n for n in own), "right_to_wrong", "pflop", *ends])
        for method in self.methods:
            found = [method.hypervolume, *(method.ways[way] for way in WAYS)]
            shared = [method.pflop, *(value for of in found for value in (of.value, of.low, of.high))]
            changed = ["", *(flip.to_wrong for flip in method.flips)]
            for option, wrong in zip(method.options, changed, strict=True):
                writer.writerow([method.name, *(getattr(option, name) for name in own), wrong, *shared])
        return text.getvalue()

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows of the table of methods as text."""
        head = ["method", "PFLOP", "error %", "ms", "hypervolume", "right in time %", "best fixed %", "times known %"]
        head += ["oracle %", "right to wrong"]
        rows = []
        for of in self.methods:
            errors, times = [o.error for o in of.options], [o.p50_ms for o in of.options]
            ways = [_percent(of.ways[way]) for way in WAYS]
            rows.append(
                [
                    *(of.name, stated(of.pflop), _ends(errors), _ends(times), _share(of.hypervolume), *ways),
                    ", ".join(f"{flip.to_wrong:,}" for flip in of.flips) or "–",
                ]
            )
        return head, rows

    def options(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows of the table of all options as text."""
        head = ["option", "error %", "ms p50", "p99", "with a neighbour p50", "p99", "used"]
        rows = [
            [
                f"{of.name}: {o.name}" if len(self.methods) > 1 else o.name,
                f"{o.error:.2f}",
                *map(_ms, (o.p50_ms, o.p99_ms, o.busy_p50_ms, o.busy_p99_ms)),
                f"{o.used:.1%}",
            ]
            for of in self.methods
            for o in of.options
        ]
        return head, rows

    def facts(self) -> list[str]:
        """Return the lines below the tables."""
        told = f"{self.protocol}: {self.images:,} test images of {self.data}, {self.requests:,} requests"
        lines = [told + (f"; departures from the protocol: {'; '.join(self.departures)}" if self.departures else "")]
        lines.append(
            f"one image, one thread; the unit of the budgets is {self.unit_ms:.3f} ms here"
            + ("; the machine was busy" if self.busy else "")
        )
        first = self.methods[0]
        for of in self.methods:
            lines.append(f"{of.name}: the best fixed option is {of.fixed}; the rule refuses {of.refused:.1%}")
            if of.gain is not None and of.hypervolume_gain is not None:
                gains = f"right in time {_points(of.gain)} points, hypervolume {_signed(of.hypervolume_gain)}"
                lines.append(f"{of.name} minus {first.name}: {gains}")
        looks = ", ".join(f"{name} {count}" for name, count in self.test_evaluations.items())
        return [*lines, f"evaluations on the test split in this folder: {looks}", *([self.note] if self.note else [])]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``result.csv`` and ``result.json``."""
        write_file(Path(folder) / "result.csv", self.to_csv())
        write_json(Path(folder) / "result.json", self.to_json())


def load_anytime(folder: str | os.PathLike[str]) -> AnytimeResult:
    """Load a result written by :meth:`AnytimeResult.save`.

    Raises:
        ValueError: the result is missing, is damaged, or was written by a later version.
    """
    return read_result(Path(folder) / "result.json", AnytimeResult, FORMAT, "bench")


def _ends(values: list[float]) -> str:
    return f"{values[0]:.2f}" if len(values) == 1 else f"{values[0]:.2f} … {values[-1]:.2f}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(of: Interval) -> str:
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]"


def _share(of: Interval) -> str:
    return f"{of.value:.3f} [{of.low:.3f}, {of.high:.3f}]"


def _points(of: Interval) -> str:
    return f"{100 * of.value:+.1f} [{100 * of.low:+.1f}, {100 * of.high:+.1f}]"


def _signed(of: Interval) -> str:
    return f"{of.value:+.3f} [{of.low:+.3f}, {of.high:+.3f}]"
