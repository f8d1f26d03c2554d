"""Claims about tables with a row for each depth. They apply to the rows that a scale measures.

Keys are ``KIND ROW`` (``ResNet 38``), with a suffix if there are several datasets (``ResNet 38 C100``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polypath.reproduce import published
from polypath.reproduce.claims import Claim, beyond
from polypath.reproduce.measured import Measured
from polypath.reproduce.trained import Trained

Values = Mapping[str, Any]
AREAS = "*Loss area* and *error area* are the training loss and the test error, each averaged over the epochs."
"""A note for experiments that measure these values."""


def rows_of(m: Values, kind: str, end: str = "") -> dict[int, Any]:
    """Return ``{row: value}`` for the keys of one kind, in the order of rows."""
    pattern = re.compile(re.escape(f"{kind} ") + r"(\d+)" + re.escape(f" {end}" if end else ""))
    found = {int(match[1]): value for key, value in m.items() if (match := pattern.fullmatch(key))}
    return dict(sorted(found.items()))


def gaps(m: Values, worse: str, better: str, end: str = "") -> dict[int, Any]:
    """Return ``{row: value of worse − value of better}`` for the rows that both kinds have.

    Raises:
        KeyError: there is no such row.
    """
    first, second = rows_of(m, worse, end), rows_of(m, better, end)
    found = {row: first[row] - second[row] for row in first if row in second}
    if not found:
        raise KeyError(f"{worse} beside {better}{f' on {end}' if end else ''}")
    return found


def always(id: str, worse: str, better: str, text: str, end: str = "", by: float = 0.0) -> Claim:
    """Claim that ``better`` has a lower error than ``worse`` in every row, by more than ``by`` points."""
    says = f"smallest difference over the rows: error of {worse} minus error of {better}{beyond(by)}"
    return Claim(id, text, lambda m: np.min(list(gaps(m, worse, better, end).values()), axis=0) - by, says=says)


def on_average(id: str, worse: str, better: str, text: str, end: str = "") -> Claim:
    """Claim that ``better`` has a lower error than ``worse``, on average over the rows."""
    says = f"error of `{worse}` minus error of `{better}`, averaged over the rows"
    return Claim(id, text, lambda m: np.mean(list(gaps(m, worse, better, end).values()), axis=0), says=says)


def slope(id: str, kind: str, text: str, *, falls: bool, end: str = "", least: int = 0, most: int = 10**6) -> Claim:
    """Claim that the values of one kind fall (or rise) along the rows from ``least`` to ``most``, judged by the
    least-squares slope."""

    def statistic(m: Values) -> Any:
        return _slope({r: v for r, v in rows_of(m, kind, end).items() if least <= r <= most}, kind, falls)

    limits = f", from depth {least} on" if least else f", up to depth {most}" if most < 10**6 else ""
    says = f"{'negated ' if falls else ''}least-squares slope of the error of `{kind}` over the depth{limits}"
    return Claim(id, text, statistic, "points a layer", says)


def gap_grows(id: str, worse: str, better: str, text: str, end: str = "") -> Claim:
    """Claim that the gap between two kinds grows along the rows, judged by the least-squares slope."""
    name = f"{worse} minus {better}"
    says = f"least-squares slope over the depth: error of {worse} minus error of {better}"
    return Claim(id, text, lambda m: _slope(gaps(m, worse, better, end), name, False), "points a layer", says)


def _slope(values: Mapping[int, Any], what: str, falls: bool) -> Any:
    if len(values) < 2:
        raise KeyError(f"{what} of two rows or more")
    x = np.asarray(list(values), dtype=float)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum() * (-1.0 if falls else 1.0)
    return sum((w * v for w, v in zip(weights, values.values(), strict=True)), np.zeros(()))


SETTING = " at the published setting"


def published_setting(run: Trained) -> Measured:
    """Measure the value 1 for arms that are trained and tested on all images with a published schedule. The one-cycle
    schedule is ours, so it does not count. Claims that compare with printed numbers need this value."""
    data = run.recipe.data
    whole = data.train_images is None and data.test_images is None and run.recipe.schedule.kind != "one-cycle"
    return Measured(values={f"whole{SETTING}": 1.0} if whole else {})


def beats_best(
    id: str, key: str, table: str, column: str, among: Callable[[Mapping[str, Any]], bool], text: str
) -> Claim:
    """Claim that ``key`` has a lower error than the best of the rows that ``among`` selects in a printed table
    (``gunn/table3``). The claim is measured only at the published setting."""
    paper, _, name = table.partition("/")
    others = [(r[column], r["method"]) for r in published.table(paper, name)["rows"] if r[column] and among(r)]
    number, method = min(others)
    return beats_printed(id, key, number, method.partition(" (")[0].partition(" [")[0], f"{text} (best: {number:g})")


def beats_printed(id: str, key: str, number: float, whose: str, text: str, arm: str = "") -> Claim:
    """Claim that ``key`` has a lower error than the paper prints for another method. ``arm`` is the name of the arm
    that ``key`` comes from, if ``key`` is not this name. The claim is measured only at the published setting."""

    def statistic(m: Values) -> Any:
        return m[f"{arm or key}{SETTING}"] * number - m[key]

    return Claim(id, text, statistic, says=f"printed error of {whose} ({number:g}) minus error of `{key}`")
