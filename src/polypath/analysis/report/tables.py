"""The tables of a report: paths, classes, calibration, channels, pairs of paths and settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from polypath.analysis.confusion import most_confused
from polypath.analysis.report.contents import Report
from polypath.core.display import short_macs

MOST_PAIRS = 16  # largest number of paths in the matrix of pairs
MOST_CLASSES = 16  # largest number of classes in a confusion matrix
MOST_ERRORS = 100  # largest number of classes in the table of errors


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text and its sort key."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Heading:
    text: str
    about: str = ""


def path_table(report: Report) -> dict[str, Any]:
    rows, whole = report.table.rows, report.table.rows[0]
    again = any(row.error_recalibrated is not None for row in rows)
    timed = any(row.p50_ms is not None for row in rows)
    head = [Heading("path"), Heading("error %", "top-1, with the network's own batch-norm statistics")]
    head += [Heading("recalibrated %", "top-1, batch-norm recalibrated for the path")] if again else []
    head += [Heading("p50 ms", "measured latency, median"), Heading("p95 ms")] if timed else []
    head += [Heading("MACs", "multiply-adds of one image"), Heading("of whole"), Heading("depth", "layers")]
    head += [Heading("parameters"), Heading("activations", "peak bytes of activations, for one image")]
    body = []
    for row in rows:
        cells = [_number(row.error, "{:.2f}")]
        cells += [_number(row.error_recalibrated, "{:.2f}")] if again else []
        cells += [_number(row.p50_ms, "{:.2f}"), _number(row.p95_ms, "{:.2f}")] if timed else []
        cells += [Cell(short_macs(row.macs), row.macs)]
        cells += [Cell(f"{row.macs / whole.macs:.0%}", row.macs / whole.macs), Cell(str(row.depth), row.depth)]
        cells += [Cell(f"{row.params:,}", row.params)]
        cells += [Cell(f"{row.activation_bytes / 2**20:.2f} MiB", row.activation_bytes)]
        body.append((row.name, cells))
    return {"head": head, "body": body}


def _number(value: float | None, form: str) -> Cell:
    if value is None or math.isnan(value):
        return Cell("–", 1e99)
    return Cell(form.format(value), float(value))


def class_errors(report: Report) -> dict[str, Any] | None:
    """Make the table of errors by class. If there are too many classes, keep those with the whole network's largest
    errors."""
    if report.classes is None:
        return None
    frame, names = report.classes.errors, report.classes.names
    paths = [str(column) for column in frame.columns[2:]]
    if len(frame) > MOST_ERRORS:
        frame = frame.sort_values(by=paths[0], ascending=False, kind="stable").head(MOST_ERRORS).sort_index()
    columns = {"images": ("images", "of the class, in this section")}
    columns |= {path: (f"{path} %", "error on images of the class, %") for path in paths}
    shown = frame.assign(name=[names[c] for c in frame["class"].tolist()])
    return _frame_table(shown, "name", columns, {"images": "{:.0f}"} | dict.fromkeys(paths, "{:.1f}"), "class")


def confusions(report: Report) -> list[dict[str, Any]]:
    """Make the confusion matrices of the whole network and the cheapest path, for the classes that the whole network
    confuses most. Rows are true classes. A cell's shade is its share of the row's images."""
    if report.classes is None:
        return []
    names, counts = report.classes.names, report.classes.counts
    of = most_confused(next(iter(counts.values())), MOST_CLASSES)
    squares = []
    for path, matrix in counts.items():
        images = matrix.sum(1).tolist()
        square = []
        for i in of:
            cells = []
            for j in of:
                n = int(matrix[i, j])
                share = n / images[i] if images[i] else 0.0
                about = f"{names[i]} classified as {names[j]}: {n:,} of {images[i]:,} images ({share:.1%})"
                cells.append(
                    {
                        "text": f"{n:,}" if n else "",
                        "share": round(100 * share),
                        "kind": "right" if i == j else "wrong",
                        "about": about,
                    }
                )
            square.append((names[i], cells))
        squares.append({"path": path, "names": [names[j] for j in of], "square": square, "left": len(names) - len(of)})
    return squares


def calibration(report: Report) -> dict[str, Any] | None:
    frame = report.calibration
    if frame is None:
        return None
    columns = {
        "error": ("error %", "on the images of this section"),
        "confidence": ("confidence %", "mean probability of the predicted class"),
        "ece": ("ECE %", "expected calibration error"),
        "temperature": ("temperature", "fitted temperature; above 1 if the path is overconfident"),
        "ece_fitted": ("ECE fitted %", "with that temperature"),
        "nll": ("cross-entropy", "nats"),
        "nll_fitted": ("fitted", "cross-entropy with that temperature"),
    }
    forms = {"temperature": "{:.2f}", "nll": "{:.3f}", "nll_fitted": "{:.3f}"}
    return _frame_table(frame, "path", columns, forms)


def channels(report: Report) -> dict[str, Any] | None:
    if report.channels is None:
        return None
    columns = {
        "channels": ("channels", ""),
        "segments": ("segments", ""),
        "within": ("within", "mean |correlation| of pairs in one segment"),
        "across": ("across", "mean |correlation| of pairs in two segments"),
        "within_alike": ("alike within %", "pairs in one segment with |correlation| of at least 0.9"),
        "across_alike": ("alike across %", "pairs in two segments with |correlation| of at least 0.9"),
        "participation": ("participation ratio", "effective dimension, computed from eigenvalues"),
        "entropy": ("by entropy", "effective dimension, computed from eigenvalues"),
    }
    forms = {"channels": "{:.0f}", "segments": "{:.0f}", "within": "{:.3f}", "across": "{:.3f}"}
    forms |= {"participation": "{:.1f}", "entropy": "{:.1f}"}
    return _frame_table(report.channels, "layer", columns, forms)


def _frame_table(
    frame: pd.DataFrame, name: str, columns: dict[str, tuple[str, str]], forms: dict[str, str], title: str = ""
) -> dict[str, Any]:
    records = frame.to_dict("records")
    body = [(str(row[name]), [_number(row[c], forms.get(c, "{:.2f}")) for c in columns]) for row in records]
    return {"head": [Heading(title or name), *(Heading(*of) for of in columns.values())], "body": body}


def pairs(report: Report) -> dict[str, Any] | None:
    """Make the matrix of pairs of paths: disagreement above the diagonal, Yule's Q below it."""
    frame = report.agreement
    if frame is None:
        return None
    every = list(dict.fromkeys([*frame["a"].to_list(), *frame["b"].to_list()]))
    names, rows = every[:MOST_PAIRS], {(row["a"], row["b"]): row for row in frame.to_dict("records")}
    most = max([row["disagreement"] for row in rows.values()] + [1e-9])
    square = []
    for i, a in enumerate(names):
        cells: list[dict[str, Any] | None] = []
        for j, b in enumerate(names):
            if i == j:
                cells.append(None)
                continue
            row = rows[(a, b) if i < j else (b, a)]
            value, text = row["disagreement"], f"{row['disagreement']:.1f}"
            if i > j:
                text = "–" if math.isnan(row["q"]) else f"{row['q']:.2f}"
            share = value / most if i < j else 0.0 if math.isnan(row["q"]) else max(0.0, row["q"])
            cells.append({"text": text, "share": round(100 * share), "kind": "upper" if i < j else "lower"})
        square.append((a, cells))
    whole = report.diversity.to_dict("records")[0] if report.diversity is not None else None
    return {"names": names, "square": square, "left": len(every) - len(names), "set": whole}


def settings(report: Report) -> dict[str, list[tuple[str, str]]]:
    found = {"recipe": list(_leaves(report.recipe))}
    if report.sessions:
        last = report.sessions[-1]
        found["environment"] = [(key, _plain(value)) for key, value in last.items()]
    return found


def _leaves(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or "none"
    return "–" if value is None else str(value)
