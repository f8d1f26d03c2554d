"""Write the pages that are made from code and result files (``make docs``). A test checks that they are current."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS / "results/reproduce"
LADDER = DOCS / "results/ladders/fractalnet-cifar10-fast"


def models_page() -> str:
    """Return ``models.md``: every registered network, its size, and the figures in its paper."""
    from polypath.families.registry import PRESETS

    lines = [
        "# Networks",
        "",
        f"These are the {len(PRESETS)} registered networks, as listed by `polypath models`. MACs are multiply-adds for",
        "one image of the given size; depth is the number of layers of the longest path. The last column gives the",
        "figures printed in the paper, each followed by ours in brackets.",
        "",
        "| name | paper | parameters | MACs | image size | depth | paths | in the paper (ours) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(model_row, PRESETS)]) + "\n"


def model_row(name: str) -> str:
    """Return the row of one network in ``models.md``."""
    from polypath.cli.models import compared, describe
    from polypath.cli.tables import millions
    from polypath.core.display import short_count
    from polypath.families.registry import PRESETS

    row = describe(name, PRESETS[name])
    source = f"{row['paper']}; {row['table']}" if row["table"] else row["paper"]
    size = f"{row['params']:,} | {millions(row['macs'])} | {row['size']}²"
    paths, figures = short_count(row["paths"]), "; ".join(compared(row))
    return f"| `{name}` | {source} | {size} | {row['depth']} | {paths} | {figures} |"


def path_table_picture() -> str:
    """Return ``images/paths.svg``: a table of paths, drawn from the committed result."""
    import io
    import json
    import re

    from rich import box
    from rich.console import Console
    from rich.table import Table

    result = json.loads((DOCS / "results/crescendonet-cifar10-small/paths.json").read_text())
    measured = result["measured"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="polypath paths runs/crescendonet-cifar10-small")
    for i, column in enumerate(["path", "error %", "p50 ms", "p95 ms", "depth", "params", "MACs"]):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in result["rows"]:
        times = [f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}"]
        size = [str(row["depth"]), f"{row['params']:,}", f"{row['macs'] / 1e6:.1f} M"]
        table.add_row(row["name"], f"{row['error']:.2f}", *times, *size)
    console = Console(record=True, width=86, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(table)
    console.print(f"{result['images']:,} test images. {result['note']}.", highlight=False)
    where = f"{measured['device']}, {measured['threads']} threads, batch {measured['batch_size']}, float32"
    console.print(f"Latency: {where}, torch {measured['torch']}.", highlight=False)
    svg = console.export_svg(title="one network, thirteen classifiers", unique_id="paths")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # no fonts from elsewhere


def front_picture() -> str:
    """Return ``images/front.svg``: error against milliseconds for the paths of the shipped network."""
    import json

    from polypath.analysis.plots.marks import Mark, Series, front
    from polypath.storage.shipped import SHIPPED

    manifest = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))
    errors = {path["name"]: path["test_error"] for path in manifest["paths"]}
    times = [row for row in manifest["latency"] if row["batch"] == 1]
    accurate = min(errors, key=errors.__getitem__)
    best = min((row for row in times if row["path"] == accurate), key=lambda row: row["p50_ms"])
    marks = [
        Mark(
            x=row["p50_ms"], y=errors[row["path"]], label=row["path"], to_x=row["p95_ms"], strong=row["path"] == "whole"
        )
        for row in times
        if (row["runtime"], row["threads"]) == (best["runtime"], best["threads"])
    ]
    machine = f"{best['processor']}, {best['threads']} threads, {best['runtime']}"
    return _picture(
        [Series(name="front", kind="stairs", marks=front(marks)), Series(name="paths", kind="dots", marks=marks)],
        f"ms for one image: median, whisker to 95% ({machine})",
        "Test error against milliseconds of the paths of one network",
    )


def ladder_picture() -> str:
    """Return ``images/ladder.svg``: error against milliseconds for paths in one network, and each trained alone."""
    from polypath.analysis.plots.marks import Mark, Series
    from polypath.worth.result import load_ladder

    result = load_ladder(LADDER)
    assert result.runtime is not None
    inside = [Mark(x=row.p50_ms or 0.0, y=row.error, label=row.name, strong=row.name == "whole") for row in result.rows]
    alone = [Mark(x=row.p50_ms or 0.0, y=row.alone["epochs"].error, label="alone") for row in result.rows]
    measured = (
        f"{result.runtime['machine']['processor']}, {result.runtime['threads']} threads, {result.runtime['name']}"
    )
    return _picture(
        [
            Series(name="trained alone", kind="dashed", marks=alone, colour=2),
            Series(name="alone", kind="dots", marks=alone, colour=2),
            Series(name="in one network", kind="line", marks=inside),
            Series(name="paths", kind="dots", marks=inside),
        ],
        f"ms for one image: median ({measured})",
        "Test error against milliseconds of paths in one network, and of each path trained alone",
    )


def _picture(series: Sequence[Any], xlabel: str, about: str) -> str:
    """Return a chart of test errors as an SVG file with a white background."""
    from polypath.analysis.plots.svg_chart import STYLE, chart

    drawn = chart(
        series,
        xlabel=xlabel,
        ylabel="test error, %",
        about=about,
        from_zero="x",
        legend=False,
        width=640,
        height=300,
    )
    picture = drawn[drawn.index("<svg") : drawn.index("</figure>")]
    head = '<svg class="chart" xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"'
    return (
        picture.replace("<svg", head, 1).replace(
            ">", f'><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>', 1
        )
        + "\n"
    )


def reproduction() -> str:
    """Return ``reproduction.md``: the papers' tables that have a committed result, and the verdicts on their claims."""
    from polypath.reproduce.page import reproduction_page

    return reproduction_page(RESULTS, before=RESULTS / "verdicts-before.json")


def verdicts() -> str:
    """Return ``results/reproduce/verdicts.json``: the same verdicts as data."""
    import json

    from polypath.reproduce.verdicts import verdicts_of

    return json.dumps(verdicts_of(RESULTS), indent=1, ensure_ascii=False) + "\n"


def results_page() -> str:
    """Return ``results/README.md``: the committed runs, and which of their recipes have changed since."""
    import json

    lines = [
        "# Runs",
        "",
        "This folder has the runs that the pages refer to. The table gives each run's error and the revision that",
        "trained it. A run is *stale* if its recipe has changed since; it is kept until the recipe is run again. The",
        "results of experiments are in `reproduce`, and on [their page](../reproduction.md).",
        "",
        "| run | test error, % | revision | note |",
        "|---|---|---|---|",
    ]
    for folder in sorted(file.parent for file in (DOCS / "results").glob("*/recipe.json")):
        error = json.loads((folder / "summary.json").read_text())["test_error"]
        revision = json.loads((folder / "environment.json").read_text())["sessions"][0]["revision"][:12]
        told = outdated(json.loads((folder / "recipe.json").read_text()))
        lines.append(f"| [{folder.name}]({folder.name}) | {error:.2f} | `{revision}` | {told and f'stale: {told}'} |")
    return "\n".join(lines) + "\n"


def outdated(recipe: dict[str, Any]) -> str:
    """Return what has changed since in the recipe of this name, except the images' location; empty if nothing has."""
    from polypath.training.recipe import recipe_from_json, recipe_to_json
    from polypath.training.recipes import get_recipe

    ran = recipe_from_json(recipe)
    try:
        now = recipe_to_json(get_recipe(ran.name))
    except ValueError:
        return "there is no recipe of this name any more"
    then, now = _flat(recipe_to_json(ran)), _flat(now)
    if now["precision"] == "auto":  # a run replaces it by the precision it uses
        then["precision"] = "auto"
    changed = {
        key: f"`{key}` was {then.get(key)}, is {now.get(key)}"
        for key in sorted(then | now)
        if then.get(key) != now.get(key) and key != "data.source" and not key.startswith("assumed.")
    }
    return "; ".join(changed.values())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def coverage() -> str:
    """Return ``coverage.md``: the papers' tables, figures and cells, and the experiment that reproduces each."""
    from polypath.reproduce.coverage import coverage_page

    return coverage_page()


def card_of(paper: str) -> str:
    """Return a card of ``cards/`` with its generated part made again."""
    from polypath.reproduce.choices import CARDS, card

    return card((DOCS / f"cards/{CARDS[paper]}.md").read_text(encoding="utf-8"), paper)


def speed_page() -> str:
    """Return ``speed.md``: the committed benchmark results."""
    return _benchmarks().page()


def fast_page() -> str:
    """Return ``fast.md``: recipes for small budgets, and the measured effect of their techniques."""
    return _benchmarks("page_ablation").page()


def worth_page() -> str:
    """Return ``worth.md``: what the paths of a network are worth, from the committed results."""
    return _benchmarks("page_worth").page()


def speed_figure() -> str:
    """Return ``images/speed.svg``: the MACs/s of every network, and its roofline."""
    return _benchmarks().figure()


def _benchmarks(module: str = "page") -> ModuleType:
    import importlib
    import sys

    if str(DOCS.parent) not in sys.path:
        sys.path.insert(0, str(DOCS.parent))
    return importlib.import_module(f"benchmarks.{module}")


def _cards() -> dict[str, str]:
    from polypath.reproduce.choices import CARDS

    return CARDS


PAGES: dict[str, Callable[[], str]] = {
    "models.md": models_page,
    "images/paths.svg": path_table_picture,
    "images/front.svg": front_picture,
    "images/ladder.svg": ladder_picture,
    "reproduction.md": reproduction,
    "results/reproduce/verdicts.json": verdicts,
    "coverage.md": coverage,
    "results/README.md": results_page,
    **{f"cards/{name}.md": partial(card_of, paper) for paper, name in _cards().items()},
}
PAGES |= {"speed.md": speed_page, "fast.md": fast_page, "worth.md": worth_page}
if _benchmarks().drawable(_benchmarks().load()):
    PAGES |= {"images/speed.svg": speed_figure}


def main() -> None:
    import json

    from polypath.reproduce.verdicts import changes
    from polypath.storage.files import write_file

    known, now = RESULTS / "verdicts.json", verdicts()
    if known.is_file() and changes(json.loads(then := known.read_text(encoding="utf-8")), json.loads(now)):
        write_file(RESULTS / "verdicts-before.json", then)  # so that the page says which verdicts have changed
    for name, make in PAGES.items():
        write_file(DOCS / name, make())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
