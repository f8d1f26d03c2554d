"""The end of ``docs/fast.md``: the effect of each technique, generated from ``results/ablation.json``
(``make docs``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "results" / "ablation.json"
PAGE = Path(__file__).parent.parent / "docs" / "fast.md"
MARK = "<!-- from here on made by docs/generate.py from benchmarks/results/ablation.json -->\n"
RECIPES = ("fractalnet-cifar10-fast", "crescendonet-cifar10-fast", "resnet-cifar10-fast")


def page(results: dict[str, Any] | None = None) -> str:
    """Return the page with its end generated again. The page lists recipes that have not been measured."""
    if results is None:
        return page(json.loads(FILE.read_text(encoding="utf-8"))["recipes"] if FILE.is_file() else {})
    parts = [PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK]
    if missing := [name for name in RECIPES if name not in results]:
        parts.append(f"Not measured yet: {', '.join(f'`{name}`' for name in missing)}.")
    for name, table in results.items():
        parts += _table(name, table)
    return "\n".join(parts).rstrip() + "\n"


def _table(name: str, table: dict[str, Any]) -> Iterator[str]:
    env = table["environment"]
    yield f"\n### `{name}`\n"
    yield (
        f"{table['pflop']:g} PFLOP a run, {table['seeds']} seeds, {table['held_out']:,} held-out images of "
        f"{table['data']}; "
        f"{env['device_name']}, {env['threads']} threads, torch {env['torch']}, {env['started'][:10]}.\n"
    )
    yield "| | epochs | PFLOP | error, % | change without it | change by it alone |"
    yield "|---|---|---|---|---|---|"
    rows = {row["arm"]: row for row in table["rows"]}
    for arm in ("all", "none"):
        if arm in rows:
            row, change = rows[arm], _change(rows[arm]) if arm == "none" else ""
            yield f"| {arm} | {row['epochs']} | {row['pflop']:.4f} | {_error(row)} | {change} | |"
    for technique in dict.fromkeys(arm.partition(" ")[2] for arm in rows if " " in arm):
        out, alone = rows.get(f"without {technique}"), rows.get(f"only {technique}")
        epochs, pflop, error = ("", "", "") if out is None else (out["epochs"], f"{out['pflop']:.4f}", _error(out))
        yield f"| without {technique} | {epochs} | {pflop} | {error} | {_change(out)} | {_change(alone)} |"


def _error(row: dict[str, Any]) -> str:
    return f"{row['val_error']:.2f}" + ("" if row["val_std"] is None else f" ± {row['val_std']:.2f}")


def _change(row: dict[str, Any] | None) -> str:
    if row is None or row["change"] is None:
        return ""
    return f"{row['change']:+.2f}" + ("" if row["change_std"] is None else f" ± {row['change_std']:.2f}")
