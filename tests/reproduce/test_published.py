"""The data file of printed numbers, and its lookup."""

from __future__ import annotations

import pytest

from polypath.reproduce import published
from polypath.reproduce.registry import get_experiment, list_experiments


def test_values_are_found_by_what_their_row_says():
    assert published.value("crescendonet", "table2", "C10+", branches=[1, 2]) == 8.69
    assert published.value("dfn", "table4", "C10_dfn_mr", depth_dfn=56) == 4.96  # of a mean and a deviation
    assert published.value("dfn", "table4", "C10_plain", depth_dfn=56) == "fail"
    assert published.value("fractalnet", "table1", "C100", method="FractalNet") == 35.34


def test_errors_list_the_legal_values():
    for says, args, row in (
        ("did you mean crescendonet", ("crescendo", "table2", "C10"), {}),
        ("did you mean .*table2", ("crescendonet", "tabel2", "C10"), {}),
        ("no column 'C11'", ("crescendonet", "table2", "C11"), {"branches": [1]}),
        ("no column 'branch'", ("crescendonet", "table2", "C10"), {"branch": [1]}),
        ("no row with branches", ("crescendonet", "table2", "C10"), {"branches": [5]}),
        ("give values for more columns: .*depth", ("crescendonet", "table2", "C10"), {"depth": 15}),
        ("its rows: none, as the table is lost", ("fractalnet", "table3_ultra_deep", "error"), {}),
    ):
        with pytest.raises(ValueError, match=says):
            published.value(*args, **row)


@pytest.mark.parametrize("name", list_experiments())
def test_every_published_number_of_an_experiment_is_in_the_file(name):
    experiment = get_experiment(name)
    for cell in experiment.published.values():
        published.value(cell.paper or experiment.paper, cell.table, cell.column, **cell.row)
