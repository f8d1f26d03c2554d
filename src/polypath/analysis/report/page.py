"""Makes the HTML of a report: fills ``page.html`` with charts and tables, and puts style and script inline."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from polypath.analysis.plots.svg_chart import STYLE
from polypath.analysis.report import tables
from polypath.analysis.report.contents import Report
from polypath.analysis.report.figures import charts
from polypath.core.wiring_svg import lights

COLUMNS, NARROW = 26, 10  # number of columns of the wiring diagram on screens and on phones


def page(report: Report) -> str:
    """Return the page as one text that needs no other files.

    The template escapes text from the run (names, notes, classes). The functions that draw charts and the wiring escape
    their own text.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("polypath.analysis", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    here = resources.files("polypath.analysis.report")
    lit = {"paths": lights(report.wiring, report.paths)}
    values: dict[str, Any] = {
        "style": Markup(STYLE + here.joinpath("page.css").read_text(encoding="utf-8")),
        "script": Markup(here.joinpath("page.js").read_text(encoding="utf-8")),
        # a '<' in a name could close the script element that contains the data
        "data": Markup(json.dumps(lit).replace("<", "\\u003c").replace("&", "\\u0026")),
    }
    for name, columns in {"wiring": COLUMNS, "narrow_wiring": NARROW}.items():
        title = "Wiring diagram of the whole network"
        values[name] = Markup(report.wiring.to_svg(columns=columns, title=title))
    values |= {name: Markup(drawn) for name, drawn in charts(report).items()}
    values |= {"report": report, "table": tables.path_table(report), "calibration": tables.calibration(report)}
    values |= {"pairs": tables.pairs(report), "channels": tables.channels(report), "settings": tables.settings(report)}
    values |= {"class_errors": tables.class_errors(report), "confusions": tables.confusions(report)}
    return environment.get_template("page.html").render(**values)
