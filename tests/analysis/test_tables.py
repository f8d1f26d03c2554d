"""The path table: rows of a run and its rivals, writing and reading them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import polypath as pp
from conftest import randomise_norms
from polypath.analysis.scoring import score
from polypath.analysis.tables import PathTable, Subject, path_table
from polypath.core.batchnorm import applied

G = torch.Generator().manual_seed(5)
TEST = [(torch.randn(30, 3, 8, 8, generator=G), torch.randint(10, (30,), generator=G)) for _ in range(2)]
TRAIN = [(torch.randn(30, 3, 8, 8, generator=G) * 2,) for _ in range(2)]


def subject(name: str, model: str = "crescendonet_32", **arguments) -> Subject:
    net = randomise_norms(pp.create_model(model, seed=1, **arguments)).eval()
    return Subject(name=name, net=net, paths=net.named_paths(), test=TEST, train=TRAIN, size=(8, 8))


@pytest.fixture(scope="module")
def made():
    mine = subject("mine", widths=(4, 4), hidden=(8,))
    rival = subject("rival", "fractalnet16_small", filters=(4, 4))
    table, stats = path_table(mine, [rival], data="noise", num_images=60, seed=3, repeats=2)
    return mine, rival, table, stats


def test_rows_are_what_the_parts_measure(made):
    mine, rival, table, stats = made
    assert [row.name for row in table.rows] == list(mine.paths)
    assert [row.name for row in table.rivals["rival"]] == list(rival.paths)
    plain = score(mine.net, mine.paths, TEST)
    for row in table.rows:
        p, spent = mine.paths[row.name], pp.cost(mine.net, row.paths, 8)
        assert row.paths == str(p)
        assert row.error == plain[row.name].error
        assert row.error_recalibrated == score(mine.net, {"": p}, TEST, stats=stats)[""].error
        assert (row.params, row.macs, row.depth) == (spent.params, spent.macs, spent.depth[1])
        assert 0 < row.p50_ms <= row.p95_ms
    assert len({row.error for row in table.rows}) > 1
    assert any(row.error != row.error_recalibrated for row in table.rows)


def test_statistics_are_the_subjects_own(made):
    mine, _, table, stats = made
    assert table.recalibrated == {"images": 60, "seed": 3}
    assert set(stats) == set(mine.paths.values())
    with applied(mine.net, stats[mine.net.paths("branches=2")]):
        pass


def test_a_table_is_a_short_line_and_a_notebook_shows_its_rows(made):
    mine, rival, table, _ = made
    assert repr(table) == f"PathTable('mine', {len(mine.paths)} paths, 1 rival, 60 test images of noise)"
    root: Any = ElementTree.fromstring(replace(table, data='<a & "b">')._repr_html_())
    names = [cell.text for cell in root.iter("th") if cell.get("scope") == "row"]
    assert names == [*mine.paths, *(f"rival: {name}" for name in rival.paths)]
    first = [cell.text for cell in root.find("tbody/tr").iter("td")]
    assert first[:2] == [f"{e:.2f}" for e in (table.rows[0].error, table.rows[0].error_recalibrated)]
    assert f"{table.rows[0].params:,}" in first
    assert '<a & "b">' in root.find("caption").text


def test_json_round_trip(made):
    table = made[2]
    assert PathTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [(r["run"], r["name"]) for r in rows] == [(run, row.name) for run, of in table.runs.items() for row in of]
    assert int(rows[0]["macs"]) == table.rows[0].macs


def test_files(made, tmp_path):
    made[2].save(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["paths.csv", "paths.json", "paths.png", "paths.svg"]
    assert PathTable.from_json(json.loads((tmp_path / "paths.json").read_text())) == made[2]


def test_facts_say_whether_statistics_were_recalibrated(made):
    facts = made[2].facts()
    assert "recalibrated on 60 training images" in facts
    assert f"torch {torch.__version__}" in facts
    alone, stats = path_table(made[0], data="noise", repeats=1)
    assert stats is None
    assert alone.recalibrated is None
    assert all(row.error_recalibrated is None for row in alone.rows)
    assert "not recalibrated" in alone.facts()


def test_refusals(made):
    mine = made[0]
    with pytest.raises(ValueError, match="is in the table twice"):
        path_table(mine, [mine], data="noise", repeats=1)
    shorter = Subject(name="shorter", net=mine.net, paths=mine.paths, test=TEST[:1], size=(8, 8))
    with pytest.raises(ValueError, match="scored on 30 test images, 'mine' on 60"):
        path_table(mine, [shorter], data="noise", repeats=1)
    for damaged in (
        {},
        {"rows": 3},
        {**made[2].to_json(), "colour": 1},
        {**made[2].to_json(), "rows": [{"name": "x"}]},
    ):
        with pytest.raises(ValueError, match="path table"):
            PathTable.from_json(damaged)
