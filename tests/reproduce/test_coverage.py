"""The coverage page: no cell, table or figure without an experiment or a reason, and no unused reason."""

from __future__ import annotations

import re

import pytest

from polypath.reproduce import coverage, published
from polypath.reproduce.experiment import Cell
from polypath.reproduce.in_print import printed_number
from polypath.reproduce.places import PLACES, TABLES, Place, Printed, Reason
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.training.recipes import list_recipes

COUNTS = {  # as the papers number them
    "crescendonet": {"Fig.": 4, "Table": 2},
    "fractalnet": {"Fig.": 3, "Table": 4},
    "dfn": {"Fig.": 12, "Table": 7},
    "gunn": {"Fig.": 4, "Table": 5},
    "drnn": {"Fig.": 4, "Table": 3},  # 6 to 9; the pages of 1 to 5 are lost
}


ENSEMBLE, ADAM = "fusenet_nf3_38-cifar10-ensemble", "crescendonet_512-svhn-adam"


def row_of(paper: str, table: str, **says):
    return published.row(paper, table, **says)


def test_every_table_and_figure_of_the_papers_has_a_line() -> None:
    for paper, counts in COUNTS.items():
        for kind, count in counts.items():
            assert len({place.label for place in PLACES[paper] if place.label.startswith(f"{kind} ")}) == count


def test_every_line_has_an_experiment_or_a_reason_and_recipes_are_there() -> None:
    page = coverage.coverage_page()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    known = {*list_recipes(), *list_experiments()}
    for row in rows:
        assert all(cell.strip(" |") for cell in row), row
        named = re.findall(r"`([a-z0-9_+-]+/[a-z0-9+-]+|[a-z0-9_]+-[a-zA-Z0-9_+-]+)`", row[-1] + row[-2])
        assert set(named) <= known | {"drop-path", "stochastic-depth"}, row
    assert all(f"`{name}`" in page for name in list_experiments())


@pytest.mark.parametrize(
    ("paper", "table", "says", "column", "experiment", "recipes"),
    [
        ("dfn", "table2", {"depth": 38, "weight_sharing": True}, "RLL", "dfn/table2", [ENSEMBLE]),
        ("dfn", "table2", {"depth": 26, "weight_sharing": False}, "RLL", "dfn/table2", ["fusenet_nf3_26-cifar10-RLL"]),
        ("dfn", "table4", {"depth_dfn": 56}, "SVHN_dfn_mr", "dfn/table4", ["dfn_mr56-svhn"]),
        ("gunn", "table2", {"stage": "error_top5"}, "gunn_18", "gunn/table2", ["gunn18-imagenet"]),
        ("drnn", "table2", {"model": "DR-ResNet 44 (l = 5)"}, "top5_acc", "drnn/table2", ["dr_resnet44-imagenet"]),
        ("crescendonet", "table2", {"branches": [1]}, "SVHN", "crescendonet/table2-svhn", [ADAM]),
    ],
)  # fmt: skip
def test_what_gives_a_cell(paper, table, says, column, experiment, recipes) -> None:
    found = coverage.given(paper, table, row_of(paper, table, **says), column)
    assert experiment in found.experiments
    assert list(found.recipes) == recipes
    assert not found.reason


def test_a_cell_without_experiment_and_reason_is_an_error(monkeypatch) -> None:
    row = row_of("gunn", "table3", method="GUNN-15")
    assert "models.md" in coverage.given("gunn", "table3", row, "params_millions").reason
    monkeypatch.setattr(coverage, "REASONS", ())
    with pytest.raises(ValueError, match="'params_millions' has neither an experiment nor a reason"):
        coverage.given("gunn", "table3", row, "params_millions")


def test_an_unused_reason_is_an_error(monkeypatch) -> None:
    stale = Reason("gunn", "table3", lambda row, column: column == "C10", "has an experiment by now")
    monkeypatch.setattr(coverage, "REASONS", (*coverage.REASONS, stale))
    with pytest.raises(ValueError, match="the reason 'has an experiment by now' is unused"):
        coverage.coverage_page()


def test_a_place_names_existing_experiments(monkeypatch) -> None:
    for place, told in (
        (Place("Fig. 9", "x", ("fig99",)), "is not an experiment"),
        (Place("Fig. 9", "x"), "needs either"),
    ):
        monkeypatch.setattr(coverage, "PLACES", coverage.PLACES | {"gunn": (place,)})
        with pytest.raises(ValueError, match=told):
            coverage.coverage_page()


def test_parts_of_cells_that_are_lists_can_be_read() -> None:
    quantity = "DR-Res 54 parameter / compute saving vs ResNet-110, %"
    cells = [Cell("prose", "value", part=part, quantity=quantity) for part in (0, 1)]
    assert [printed_number(get_experiment("drnn/cost"), cell) for cell in cells] == [73.53, 24.71]


def test_own_rows_of_a_table_are_the_papers() -> None:
    of = next(t for t in TABLES["dfn"] if t.table == "table5")
    assert isinstance(of, Printed)
    assert [row["method"] for row, _ in coverage.printed_cells("dfn", of)] == [f"DFN-MR{n} (ours)" for n in (1, 2, 3)]
