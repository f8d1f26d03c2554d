"""Evaluates each claim on the numbers that the claim's paper prints.

This checks only our reading of a paper. If a claim is false on these numbers, either we misread the paper or the paper
contradicts itself. In the second case, ``Claim.contradicted`` quotes the contradicting numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from polypath.reproduce.claims import Claim
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.papers.rows import SETTING
from polypath.reproduce.published import value

Outcome = Literal["true in print", "contradicted in print", "not printed"]


def printed_number(experiment: Experiment, cell: Cell) -> float | str | None:
    """Return the printed content of a cell, in the unit of our measurement: a number, a word, or None if the cell is
    empty or lost."""
    printed: Any = value(cell.paper or experiment.paper, cell.table, cell.column, **cell.row)
    if cell.part is not None:
        printed = printed[cell.part]
    if not isinstance(printed, float | int):
        return printed
    return round(cell.times * (100.0 - printed if cell.complement else printed), 4)


def printed_numbers(experiment: Experiment) -> dict[str, float]:
    """Return all printed numbers of an experiment, by key."""
    cells = {key: printed_number(experiment, cell) for key, cell in experiment.published.items()}
    numbers = {key: float(number) for key, number in cells.items() if isinstance(number, float | int)}
    return numbers | {f"{key}{SETTING}": 1.0 for key in numbers}


def in_print(experiment: Experiment, claim: Claim) -> Outcome:
    """Return whether a claim is true on the paper's printed numbers. The outcome is ``not printed`` if a number is
    missing, or if the claim reads no printed number because it is about exact counts of the networks."""
    statistic = printed_effect(claim, printed_numbers(experiment))
    if statistic is None:
        return "not printed"
    return "true in print" if statistic > 0 else "contradicted in print"


def printed_effect(claim: Claim, numbers: Mapping[str, float]) -> float | None:
    """Return a claim's statistic of the printed ``numbers``; None if a number is missing, or if the statistic reads no
    number."""
    read = _Read(numbers)
    try:
        found = float(claim.statistic(read))
    except KeyError:
        return None
    return found if read.read else None


class _Read(Mapping[str, float]):
    """A mapping from keys to numbers that records whether any number was read."""

    def __init__(self, numbers: Mapping[str, float]) -> None:
        self._numbers, self.read = numbers, False

    def __getitem__(self, key: str) -> float:
        number = self._numbers[key]
        self.read = True
        return number

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
