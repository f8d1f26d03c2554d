"""A report as HTML: charts and tables put into ``page.html``, with the style and the script inside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from polypath.analysis.plots.paths import short_names
from polypath.analysis.plots.svg_chart import Mark, Series, chart, front
from polypath.analysis.plots.wiring_svg import lights, wiring_svg
from polypath.analysis.report.contents import Report
from polypath.analysis.scoring import PathRow

COLUMNS = 26  # of the wiring, side by side
MOST_PAIRS = 16  # paths in the square of pairs
MOST_PANELS = 12  # reliability diagrams


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, and by what it is sorted."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Heading:
    text: str
    about: str = ""


def page(report: Report) -> str:
    """The page, with everything in it.

    Text from the run (names, notes, classes) is escaped by the template; charts and the wiring escape their own.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("polypath.analysis", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    here = resources.files("polypath.analysis.report")
    lit = {"paths": lights(report.wiring, report.paths, columns=COLUMNS)}
    values: dict[str, Any] = {
        "style": Markup(here.joinpath("page.css").read_text(encoding="utf-8")),
        "script": Markup(here.joinpath("page.js").read_text(encoding="utf-8")),
        # '<' would let a name close the script that holds the data
        "data": Markup(json.dumps(lit).replace("<", "\\u003c").replace("&", "\\u0026")),
        "wiring": Markup(wiring_svg(report.wiring, columns=COLUMNS, title="Wiring diagram of the whole network")),
    }
    values |= {name: Markup(drawn) for name, drawn in _charts(report).items()}
    values |= {"report": report, "table": _path_table(report), "calibration": _calibration(report)}
    values |= {"pairs": _pairs(report), "channels": _channels(report), "settings": _settings(report)}
    return environment.get_template("page.html").render(**values)


# --- charts --------------------------------------------------------------------------------------------------


def _charts(report: Report) -> dict[str, str]:
    rows = report.table.rows
    timed = any(row.p50_ms is not None for row in rows)
    found = {
        "loss_curve": _curve(report, "loss", "loss"),
        "error_curve": _curve(report, "error", "top-1 error (%)"),
        "macs_chart": _cost_chart(report, lambda row: row.macs / 1e6, "MACs of one image (millions)"),
        "latency_chart": _cost_chart(report, lambda row: row.p50_ms, "latency (ms), p50 to p95") if timed else "",
        "depth_chart": _depth_chart(report),
        "importance_chart": _importance_chart(report),
        "loops_chart": _loops_chart(report),
        "gates_chart": _gates_chart(report),
        "spectrum_chart": _spectrum_chart(report),
    }
    panels = _groups(report.reliability, "path")[:MOST_PANELS]
    found["reliability_charts"] = "".join(_reliability_chart(name, of) for name, of in panels)
    return found


def _curve(report: Report, what: str, label: str) -> str:
    series, names = [], {"train": "training", "val": "held out", "traced_test": "test, looked at"}
    for i, (split, name) in enumerate(names.items(), 1):
        marks = [
            Mark(x=row["epoch"], y=row[f"{split}_{what}"])
            for row in report.curves
            if isinstance(row.get(f"{split}_{what}"), int | float)
        ]
        if marks:
            series.append(Series(name=name, kind="line", marks=marks, colour=i))
    about = f"{label} by epoch"
    return chart(series, xlabel="epoch", ylabel=label, about=about, from_zero="y") if series else ""


def _cost_chart(report: Report, at: Any, xlabel: str) -> str:
    series = []
    for i, (run, rows) in enumerate(report.table.runs.items(), 1):
        short = short_names(rows)
        marks = [_cost_mark(row, at(row), short, run if i > 1 else "") for row in rows if at(row) is not None]
        best = front(marks)
        marks = [m if k not in best else Mark(**{**vars(m), "labelled": True}) for k, m in enumerate(marks)]
        series.append(Series(name=run, kind="dots", marks=marks, colour=i))
    about = f"top-1 error of each path against {xlabel}"
    return chart(series, xlabel=xlabel, ylabel="top-1 error (%)", about=about, from_zero="x", height=320)


def _cost_mark(row: PathRow, x: float, short: dict[str, str], rival: str) -> Mark:
    name = f"{rival} {short[row.name]}" if rival else short[row.name]
    recalibrated = row.error_recalibrated is not None
    latency = "" if row.p50_ms is None else f", {row.p50_ms:.2f} ms"
    return Mark(
        x=x,
        y=row.best_error,
        name=f"{name}: {row.best_error:.2f}%, {macs_text(row.macs)} MACs{latency}",
        path="" if rival else row.name,
        to_x=row.p95_ms if x == row.p50_ms else None,
        from_y=row.error if recalibrated else None,
    )


def _depth_chart(report: Report) -> str:
    frame = report.depths
    if len(frame) < 2:
        return ""
    powers = max(frame["log10"].to_list()) > 3
    marks = [
        Mark(x=depth, y=log if powers else float(count), name=f"{count:,} paths of {depth} layers")
        for depth, count, log in zip(frame["depth"], frame["paths"], frame["log10"], strict=True)
    ]
    series = [Series(name="paths", kind="bars", marks=marks)]
    about = "number of paths of each depth"
    return chart(series, xlabel="depth (layers)", ylabel="paths", about=about, from_zero="y", powers=powers)


def _importance_chart(report: Report) -> str:
    if report.importance is None:
        return ""
    rows = report.importance.to_dict("records")
    names = [str(row["dropped"]).replace(".join:", " ").replace(":", " ") for row in rows]
    marks = [
        Mark(
            x=i, y=row["increase"], name=f"without {name}: {row['increase']:+.2f} ± {row['standard_error']:.2f} points"
        )
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
    ]
    series = [Series(name="increase", kind="bars", marks=marks)]
    height = 230.0 + 6.2 * max(map(len, names))
    about = "increase of the error without each operand"
    return chart(
        series,
        xlabel="",
        ylabel="error without it (points more)",
        about=about,
        from_zero="y",
        names=names,
        height=height,
    )


def _loops_chart(report: Report) -> str:
    if report.loops is None:
        return ""
    marks = [
        Mark(x=row["loops"], y=100 * row["share"], name=f"{row['loops']} loops: {row['images']:,} images, {_said(row)}")
        for row in report.loops.to_dict("records")
    ]
    series = [Series(name="images", kind="bars", marks=marks)]
    about = "share of the images that take each number of loops"
    return chart(series, xlabel="loops that an image takes", ylabel="images (%)", about=about, from_zero="y")


def _said(row: dict[Any, Any]) -> str:
    return "error –" if math.isnan(row["error"]) else f"error {row['error']:.2f}%"


def _gates_chart(report: Report) -> str:
    if report.gates is None:
        return ""
    rows = report.gates.to_dict("records")
    names = [f"{str(row['switch']).rpartition('.')[0] or row['switch']} {row['loop']}" for row in rows]
    text = [f"{n}: {row['passed']:,} of {row['reached']:,} that reach it" for n, row in zip(names, rows, strict=True)]
    of_all = [Mark(x=i, y=100 * row["share"], name=text[i]) for i, row in enumerate(rows)]
    of_these = [Mark(x=i, y=100 * row["rate"], name=text[i]) for i, row in enumerate(rows)]
    series = [
        Series(name="let pass, of all images", kind="bars", marks=of_all),
        Series(name="of those that reach it", kind="dots", marks=of_these, colour=2),
    ]
    height = 230.0 + 6.2 * max(map(len, names))
    bounds = (-0.7, len(rows) - 0.3, 0.0, 105.0)
    about = "share of images that each gate lets pass"
    return chart(series, xlabel="", ylabel="images (%)", about=about, names=names, height=height, bounds=bounds)


def _spectrum_chart(report: Report) -> str:
    if report.spectrum is None:
        return ""
    series = [
        Series(
            name=name,
            kind="line",
            marks=[Mark(x=r, y=100 * c) for r, c in zip(of["rank"], of["cumulative"], strict=True)],
            colour=i % 6 + 1,
        )
        for i, (name, of) in enumerate(_groups(report.spectrum, "layer"))
    ]
    return chart(
        series,
        xlabel="eigenvalues, the largest first",
        ylabel="cumulative share (%)",
        about="cumulative share of the eigenvalues of the channels' covariance",
        from_zero="y",
    )


def _reliability_chart(name: str, of: pd.DataFrame) -> str:
    rows = of.to_dict("records")
    total = max(1, sum(row["images"] for row in rows))
    bars = [
        Mark(x=(row["low"] + row["high"]) / 2, y=row["images"] / total, name=f"{row['images']:,} images")
        for row in rows
    ]
    line = [Mark(x=row["confidence"], y=row["accuracy"]) for row in rows if row["images"]]
    dots = [
        Mark(**{**vars(m), "name": f"confidence {m.x:.2f}: {m.y:.2f} right ({row['images']:,} images)"})
        for m, row in zip(line, [row for row in rows if row["images"]], strict=True)
    ]
    series = [
        Series(name="perfect", kind="dashed", marks=[Mark(x=0, y=0), Mark(x=1, y=1)], colour=6),
        Series(name="accuracy", kind="line", marks=line, colour=1),
        Series(name="accuracy", kind="dots", marks=dots, colour=1),
    ]
    drawn = chart(
        [Series(name="share of images", kind="columns", marks=bars, colour=1), *series],
        xlabel="confidence",
        ylabel="accuracy",
        about=f"reliability of {name}",
        bounds=(0.0, 1.0, 0.0, 1.0),
        width=280,
        height=220,
        legend=False,
        title=name,
    )
    return drawn


# --- tables --------------------------------------------------------------------------------------------------


def _path_table(report: Report) -> dict[str, Any]:
    rows, whole = report.table.rows, report.table.rows[0]
    again = any(row.error_recalibrated is not None for row in rows)
    timed = any(row.p50_ms is not None for row in rows)
    head = [Heading("path"), Heading("error %", "top-1, with the network's own batch-norm statistics")]
    head += [Heading("re-estimated %", "top-1, batch-norm re-estimated for the path")] if again else []
    head += [Heading("p50 ms", "measured latency, median"), Heading("p95 ms")] if timed else []
    head += [Heading("MACs", "multiply-adds of one image"), Heading("of whole"), Heading("depth", "layers")]
    head += [Heading("parameters"), Heading("activations", "most bytes held at a time, of one image")]
    body = []
    for row in rows:
        cells = [_number(row.error, "{:.2f}")]
        cells += [_number(row.error_recalibrated, "{:.2f}")] if again else []
        cells += [_number(row.p50_ms, "{:.2f}"), _number(row.p95_ms, "{:.2f}")] if timed else []
        cells += [Cell(macs_text(row.macs), row.macs)]
        cells += [Cell(f"{row.macs / whole.macs:.0%}", row.macs / whole.macs), Cell(str(row.depth), row.depth)]
        cells += [Cell(f"{row.params:,}", row.params)]
        cells += [Cell(f"{row.activation_bytes / 2**20:.2f} MiB", row.activation_bytes)]
        body.append((row.name, cells))
    return {"head": head, "body": body}


def macs_text(value: float) -> str:
    scaled, letter = (value / 1e6, "M") if value < 1e9 else (value / 1e9, "G")
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"


def _number(value: float | None, form: str) -> Cell:
    if value is None or math.isnan(value):
        return Cell("–", 1e99)
    return Cell(form.format(value), float(value))


def _calibration(report: Report) -> dict[str, Any] | None:
    frame = report.calibration
    if frame is None:
        return None
    columns = {
        "error": ("error %", "on the images of this section"),
        "confidence": ("confidence %", "mean probability of the answer"),
        "ece": ("ECE %", "expected calibration error"),
        "temperature": ("temperature", "fitted; above 1, the path is too sure of itself"),
        "ece_fitted": ("ECE fitted %", "with that temperature"),
        "nll": ("cross-entropy", "nats"),
        "nll_fitted": ("fitted", "cross-entropy with that temperature"),
    }
    forms = {"temperature": "{:.2f}", "nll": "{:.3f}", "nll_fitted": "{:.3f}"}
    return _frame_table(frame, "path", columns, forms)


def _channels(report: Report) -> dict[str, Any] | None:
    if report.channels is None:
        return None
    columns = {
        "channels": ("channels", ""),
        "segments": ("segments", ""),
        "within": ("within", "mean |correlation| of pairs in one segment"),
        "across": ("across", "mean |correlation| of pairs in two segments"),
        "within_alike": ("alike within %", "pairs at or above 0.9"),
        "across_alike": ("alike across %", "pairs at or above 0.9"),
        "participation": ("participation ratio", "effective dimension, of eigenvalues"),
        "entropy": ("by entropy", "effective dimension, of eigenvalues"),
    }
    forms = {"channels": "{:.0f}", "segments": "{:.0f}", "within": "{:.3f}", "across": "{:.3f}"}
    forms |= {"participation": "{:.1f}", "entropy": "{:.1f}"}
    return _frame_table(report.channels, "layer", columns, forms)


def _frame_table(
    frame: pd.DataFrame, name: str, columns: dict[str, tuple[str, str]], forms: dict[str, str]
) -> dict[str, Any]:
    records = frame.to_dict("records")
    body = [(str(row[name]), [_number(row[c], forms.get(c, "{:.2f}")) for c in columns]) for row in records]
    return {"head": [Heading(name), *(Heading(*of) for of in columns.values())], "body": body}


def _pairs(report: Report) -> dict[str, Any] | None:
    """The square of pairs: disagreement above the diagonal, Q below it."""
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
            cells.append({"text": text, "share": round(100 * share), "upper": i < j})
        square.append((a, cells))
    whole = report.diversity.to_dict("records")[0] if report.diversity is not None else None
    return {"names": names, "square": square, "left": len(every) - len(names), "set": whole}


# --- settings ------------------------------------------------------------------------------------------------


def _settings(report: Report) -> dict[str, list[tuple[str, str]]]:
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


def _groups(frame: pd.DataFrame | None, column: str) -> list[tuple[str, Any]]:
    return [] if frame is None else [(str(name), of) for name, of in frame.groupby(column, sort=False)]
