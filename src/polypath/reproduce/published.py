"""The numbers printed in the papers, from the data file ``published.json`` beside this module.

    value("crescendonet", "table2", "C10+", branches=[1, 2])     # 8.69

Cells that are missing in our copy of a paper are None, and missing tables have no rows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polypath.core.checks import did_you_mean

FILE = Path(__file__).with_name("published.json")


@functools.cache
def papers() -> dict[str, Any]:
    """Return the contents of ``published.json``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def table(paper: str, name: str) -> dict[str, Any]:
    """Return a printed table: ``caption``, ``columns``, ``rows`` (mappings from column to value), and sometimes
    ``status``.

    Raises:
        ValueError: an unknown paper or table. The message suggests similar names.
    """
    known = papers()
    if paper not in known:
        raise ValueError(f"unknown paper {paper!r}; {did_you_mean(paper, known)}")
    tables = known[paper]["tables"]
    if name not in tables:
        raise ValueError(f"{paper} has no published table {name!r}; {did_you_mean(name, tables)}")
    return tables[name]


def row(paper: str, name: str, **says: Any) -> Mapping[str, Any]:
    """Return the one row of a table with the given values (``depth=50``, ``branches=[1, 2]``).

    Raises:
        ValueError: an unknown table or column, no such row, or several such rows.
    """
    rows = table(paper, name)["rows"]
    columns = dict.fromkeys(column for r in rows for column in r)
    if unknown := [column for column in says if column not in columns]:
        raise ValueError(f"{paper}/{name} has no column {unknown[0]!r}; {did_you_mean(unknown[0], columns)}")
    found = [r for r in rows if all(r.get(column) == value for column, value in says.items())]
    wanted = ", ".join(f"{column}={value!r}" for column, value in says.items())
    if not found:
        some = "; ".join(str({column: r.get(column) for column in says}) for r in rows[:12])
        raise ValueError(f"{paper}/{name} has no row with {wanted}; its rows: {some or 'none, as the table is lost'}")
    if len(found) > 1:
        raise ValueError(
            f"{paper}/{name} has {len(found)} rows with {wanted}; give values for more columns: {', '.join(columns)}"
        )
    return found[0]


def value(paper: str, name: str, column: str, **says: Any) -> float | str | None:
    """Return one printed number (the mean if mean and deviation are printed) or a printed word (``fail``). Return None
    if the cell is empty or lost.

    Raises:
        ValueError: an unknown column, or an error of :func:`row`.
    """
    found = row(paper, name, **says)
    columns = dict.fromkeys(c for r in table(paper, name)["rows"] for c in r)
    if column not in columns:
        raise ValueError(f"{paper}/{name} has no column {column!r}; {did_you_mean(column, columns)}")
    cell = found.get(column)
    return cell["mean"] if isinstance(cell, dict) else cell
