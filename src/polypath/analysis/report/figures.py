"""The charts of a report, as SVG."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from polypath.analysis.plots.marks import LATENCY, MACS, CostAxis, Mark, Series, error_against, named_front
from polypath.analysis.plots.svg_chart import chart
from polypath.analysis.report.contents import Report

MOST_PANELS = 12  # largest number of reliability diagrams


def charts(report: Report) -> dict[str, str]:
    """Draw every chart. Return SVG by the chart's name in ``page.html``, or an empty string if there is nothing to
    draw."""
    rows = report.table.rows
    timed = any(row.p50_ms is not None for row in rows)
    found = {
        "loss_curve": _curve(report, "loss", "loss"),
        "error_curve": _curve(report, "error", "top-1 error (%)"),
        "macs_chart": _cost_chart(report, MACS),
        "latency_chart": _cost_chart(report, LATENCY) if timed else "",
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


def _cost_chart(report: Report, axis: CostAxis) -> str:
    series = [named_front(of) for of in error_against(axis, report.table.runs)]
    about = f"top-1 error of each path against {axis.label}"
    return chart(series, xlabel=axis.label, ylabel="top-1 error (%)", about=about, from_zero="x", height=320)


def _depth_chart(report: Report) -> str:
    frame = report.depths
    if len(frame) < 2:
        return ""
    powers = max(frame["log10"].to_list()) > 3
    marks = [
        Mark(x=depth, y=log if powers else float(count), about=f"{count:,} paths of {depth} layers")
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
            x=i, y=row["increase"], about=f"without {name}: {row['increase']:+.2f} ± {row['standard_error']:.2f} points"
        )
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
    ]
    series = [Series(name="increase", kind="bars", marks=marks)]
    height = 230.0 + 6.2 * max(map(len, names))
    about = "increase of the error without each operand"
    return chart(
        series,
        xlabel="",
        ylabel="increase of error without it (points)",
        about=about,
        from_zero="y",
        names=names,
        height=height,
    )


def _loops_chart(report: Report) -> str:
    if report.loops is None:
        return ""
    marks = [
        Mark(
            x=row["loops"], y=100 * row["share"], about=f"{row['loops']} loops: {row['images']:,} images, {_said(row)}"
        )
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
    of_all = [Mark(x=i, y=100 * row["share"], about=text[i]) for i, row in enumerate(rows)]
    of_these = [Mark(x=i, y=100 * row["rate"], about=text[i]) for i, row in enumerate(rows)]
    series = [
        Series(name="passed, of all images", kind="bars", marks=of_all),
        Series(name="of those that reach it", kind="dots", marks=of_these, colour=2),
    ]
    height = 230.0 + 6.2 * max(map(len, names))
    bounds = (-0.7, len(rows) - 0.3, 0.0, 105.0)
    about = "share of images that each gate passes"
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
        Mark(x=(row["low"] + row["high"]) / 2, y=row["images"] / total, about=f"{row['images']:,} images")
        for row in rows
    ]
    known = [(row["confidence"], row["accuracy"], row["images"]) for row in rows if row["images"]]
    dots = [Mark(x=x, y=y, about=f"confidence {x:.2f}: {y:.2f} right ({n:,} images)") for x, y, n in known]
    series = [
        Series(name="perfect", kind="dashed", marks=[Mark(x=0, y=0), Mark(x=1, y=1)], colour=6),
        Series(name="accuracy", kind="line", marks=dots, colour=1),
        Series(name="accuracy", kind="dots", marks=dots, colour=1),
    ]
    return chart(
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


def _groups(frame: pd.DataFrame | None, column: str) -> list[tuple[str, Any]]:
    return [] if frame is None else [(str(name), of) for name, of in frame.groupby(column, sort=False)]
