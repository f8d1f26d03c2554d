"""Writes the documents that are made from code and result files: ``make docs``. A test checks that they are current."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parent


def models_page() -> str:
    """``models.md``: every registered network, its size, and what its paper prints."""
    from polypath.families.registry import PRESETS

    lines = [
        "# Networks",
        "",
        f"The {len(PRESETS)} registered networks, as `polypath models` tells them. MACs are the multiply-adds of one",
        "image of the size given, depth the layers of the longest path. Behind a printed figure stands ours.",
        "",
        "| name | paper | parameters | MACs | at | depth | paths | printed (ours) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(model_row, PRESETS)]) + "\n"


def model_row(name: str) -> str:
    """One network's line of ``models.md``."""
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
    """``images/paths.svg``: the README's path table, drawn from the committed result."""
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


def reproduction() -> str:
    """``reproduction.md``: the papers' tables that have a committed result, and the verdicts on their claims."""
    from polypath.reproduce.page import reproduction_page

    return reproduction_page(DOCS / "results/reproduce")


def coverage() -> str:
    """``coverage.md``: the papers' tables, figures and cells, and what gives each."""
    from polypath.reproduce.coverage import coverage_page

    return coverage_page()


def card_of(paper: str) -> str:
    """A card of ``cards/``, with its generated part made again."""
    from polypath.reproduce.choices import CARDS, card

    return card((DOCS / f"cards/{CARDS[paper]}.md").read_text(encoding="utf-8"), paper)


def speed_page() -> str:
    """``speed.md``: what the committed benchmark results say."""
    return _benchmarks().page()


def speed_figure() -> str:
    """``images/speed.svg``: MACs/s of every network and its roof."""
    return _benchmarks().figure()


def _benchmarks() -> ModuleType:
    import importlib
    import sys

    if str(DOCS.parent) not in sys.path:
        sys.path.insert(0, str(DOCS.parent))
    return importlib.import_module("benchmarks.page")


def _cards() -> dict[str, str]:
    from polypath.reproduce.choices import CARDS

    return CARDS


PAGES: dict[str, Callable[[], str]] = {
    "models.md": models_page,
    "images/paths.svg": path_table_picture,
    "reproduction.md": reproduction,
    "coverage.md": coverage,
    **{f"cards/{name}.md": partial(card_of, paper) for paper, name in _cards().items()},
}
PAGES |= {"speed.md": speed_page}
if _benchmarks().drawable(_benchmarks().load()):
    PAGES |= {"images/speed.svg": speed_figure}


def main() -> None:
    from polypath.storage.files import write_file

    for name, make in PAGES.items():
        write_file(DOCS / name, make())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
