"""The coverage page (``docs/coverage.md``). The page lists every table and figure of the five papers, and every printed
cell of the papers' own systems. For each of them, it gives the experiment and the recipe for the reproduction, or the
reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from polypath.reproduce import published
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.places import PLACES, REASONS, TABLES, Printed
from polypath.reproduce.registry import get_experiment, list_experiments

HEAD = """# Coverage

This page lists every table and figure of the five papers, and every printed cell of the papers' own systems. For each
of them, the page gives the experiment that reproduces it (`polypath reproduce PAPER/TABLE`) and the recipe that trains
the network in the published setting (`polypath train RECIPE`), or the reason why there is no experiment. *Lost*
numbers, curves, bars and pages are missing in our copy of the paper. `make docs` generates this page from the
experiments' definitions. The results are in [reproduction.md](reproduction.md).
"""

TITLES = {
    "crescendonet": "CrescendoNet (2017)",
    "fractalnet": "FractalNet (ICLR 2017)",
    "dfn": "Deeply-fused nets (2016)",
    "gunn": "GUNN (ICML 2018)",
    "drnn": "DRNN (CVPR 2019)",
}


class Given(NamedTuple):
    """The source of a cell's number: experiments and recipe names, or the reason why there is no experiment. Counted
    numbers have no recipes."""

    experiments: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    reason: str = ""


def coverage_page() -> str:
    """Return the coverage page as Markdown.

    Raises:
        ValueError: a cell, table or figure has neither an experiment nor a reason, or a reason is unused.
    """
    lines = [HEAD]
    for paper, title in TITLES.items():
        lines += [f"## {title}", "", *_places(paper), *(line for t in TABLES[paper] for line in _table(paper, t))]
    if unused := [reason.text for reason in REASONS if not _needed(reason)]:
        raise ValueError(f"coverage: the reason {unused[0]!r} is unused")
    return "\n".join(lines).rstrip() + "\n"


def _places(paper: str) -> Iterator[str]:
    """Yield a line for each table and figure, and for each experiment that belongs to none of them."""
    known, said = list_experiments(paper), set[str]()
    yield from ("| in the paper | content | experiments |", "|---|---|---|")
    for place in PLACES[paper]:
        if unknown := [name for name in place.experiments if f"{paper}/{name}" not in known]:
            raise ValueError(f"coverage: {place.label} of {paper} refers to {unknown[0]!r}, which is not an experiment")
        if bool(place.experiments) == bool(place.reason):
            raise ValueError(f"coverage: {place.label} of {paper} needs either an experiment or a reason")
        names = [f"{paper}/{name}" for name in place.experiments]
        said.update(names)
        yield f"| {place.label} | {place.shows} | {_code(names) or place.reason} |"
    for name in known:
        if name not in said:
            yield f"| {get_experiment(name).place} | {get_experiment(name).shows} | `{name}` |"
    yield ""


def _table(paper: str, of: Printed) -> Iterator[str]:
    yield from (f"### {of.label}", "", "| row | printed | experiments | recipes |", "|---|---|---|---|")
    for row, cells in printed_cells(paper, of):
        by: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
        for column, number in cells.items():
            how = given(paper, of.table, row, column)
            numbers, recipes = by.setdefault((_code(how.experiments) or "–", how.reason), ([], []))
            numbers.append(f"{column} {number}")
            recipes += how.recipes
        for (experiments, reason), (numbers, recipes) in by.items():
            how_trained = reason or _code(dict.fromkeys(recipes)) or "none: counted"
            yield f"| {_label(row, of)} | {', '.join(numbers)} | {experiments} | {how_trained} |"
    yield ""


def printed_cells(paper: str, of: Printed) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Yield the printed rows of the paper's own systems, with the content of each cell."""
    for row in published.table(paper, of.table)["rows"]:
        cells = {column: _number(row.get(column)) for column in of.columns if of.own(row)}
        if cells := {column: number for column, number in cells.items() if number is not None}:
            yield row, cells


def given(paper: str, table: str, row: Mapping[str, Any], column: str) -> Given:
    """Return the source of a printed cell's number.

    Raises:
        ValueError: the cell has neither an experiment nor a reason.
    """
    found = _index().get((paper, table, id(row), column), [])
    if not found:
        for reason in REASONS:
            if (reason.paper, reason.table) == (paper, table) and reason.of(row, column):
                return Given(reason=reason.text)
        raise ValueError(f"coverage: {paper}/{table}, {dict(row)}: {column!r} has neither an experiment nor a reason")
    experiments = dict.fromkeys(name for name, _ in found)
    recipes = dict.fromkeys(recipe for name, key in found for recipe in recipes_of(get_experiment(name), key))
    return Given(tuple(experiments), tuple(recipes))


def recipes_of(experiment: Experiment, key: str) -> list[str]:
    """Return the names of the recipes that a key's measurement needs in the published setting; empty if the key is
    counted."""
    arms = experiment.scale("paper").arms if "paper" in experiment.scales else {}
    if experiment.arms_of is not None:
        return [arms[arm].name for arm in experiment.arms_of(key)]
    own = [arm for arm in arms if key == arm or key.startswith((f"{arm} ", f"{arm}/"))]
    if own:
        return [arms[max(own, key=len)].name]
    if len(arms) != 1 and experiment.counts is None:
        raise ValueError(
            f"coverage: {experiment.name} must define arms_of, since the arms of the key {key!r} are unknown"
        )
    return [recipe.name for recipe in arms.values()] if len(arms) == 1 else []


_INDEX: dict[tuple[str, str, int, str], list[tuple[str, str]]] = {}


def _index() -> Mapping[tuple[str, str, int, str], list[tuple[str, str]]]:
    """Return the experiments and keys that reproduce each printed cell, by cell."""
    if not _INDEX:
        for experiment in map(get_experiment, list_experiments()):
            for key, cell in experiment.published.items():
                _INDEX.setdefault(_place_of(experiment, cell), []).append((experiment.name, key))
    return _INDEX


def _place_of(experiment: Experiment, cell: Cell) -> tuple[str, str, int, str]:
    paper = cell.paper or experiment.paper
    return paper, cell.table, id(published.row(paper, cell.table, **cell.row)), cell.column


def _needed(reason: Any) -> bool:
    of = next(t for t in TABLES[reason.paper] if t.table == reason.table)
    return any(
        reason.of(row, column) and not _index().get((reason.paper, reason.table, id(row), column))
        for row, cells in printed_cells(reason.paper, of)
        for column in cells
    )


def _number(cell: Any) -> Any:
    """Return a cell's content: a number, a mean and its deviation, or a word."""
    return f"{cell['mean']} ± {cell['std']}" if isinstance(cell, dict) else cell


def _label(row: Mapping[str, Any], of: Printed) -> str:
    said: Callable[[str], str] = partial(_said, row)
    return ", ".join(filter(None, map(said, of.names))).replace("|", "\\|")


def _said(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool):
        return name.replace("_", " ") if value else f"no {name.replace('_', ' ')}"
    text = "{" + ", ".join(map(str, value)) + "}" if isinstance(value, list) else str(value)
    return "" if value is None else f"{name.replace('_', ' ')} {text}" if isinstance(value, int | float) else text


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
