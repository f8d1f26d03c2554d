"""Writes the documents that are made from code and result files: ``make docs``. A test checks that they are current."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent


def models_page() -> str:
    """``models.md``: every registered network, its size, and what its paper prints."""
    from polypath.cli.models import compared, describe
    from polypath.cli.tables import exact, millions
    from polypath.registry import PRESETS

    lines = [
        "# Networks",
        "",
        f"The {len(PRESETS)} registered networks, as `polypath models` tells them. MACs are the multiply-adds of one image of the",
        "size given, depth the layers of the longest path. Behind a printed figure stands ours.",
        "",
        "| name | paper | parameters | MACs | at | depth | paths | printed (ours) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        row = describe(name, preset)
        source = f"{row['paper']}; {row['table']}" if row["table"] else row["paper"]
        size = f"{row['params']:,} | {millions(row['macs'])} | {row['size']}²"
        lines.append(
            f"| `{name}` | {source} | {size} | {row['depth']} | {exact(row['paths'])} | {'; '.join(compared(row))} |"
        )
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"models.md": models_page}


def main() -> None:
    from polypath.files import write_file

    for name, make in PAGES.items():
        write_file(DOCS / name, make())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
