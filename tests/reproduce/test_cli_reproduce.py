"""``polypath reproduce``: its output and its errors."""

from __future__ import annotations

import json

from tiny_experiments import tiny

from polypath.cli import main
from polypath.reproduce import registry
from polypath.reproduce.registry import list_experiments


def test_without_a_name_it_lists_all_experiments(capsys):
    assert main(["reproduce", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list_experiments()
    assert "smoke" in listed[0]["scales"]


def test_it_prints_the_changes_of_the_scale_before_the_result(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "get_experiment", lambda name: tiny())
    assert main(["reproduce", "fractalnet/tiny", "--scale", "smoke", "--seeds", "2", "--out", str(tmp_path / "o")]) == 0
    text, notes = capsys.readouterr()
    assert text.index("changed: it is a test") < text.index("± ")
    assert [line.partition(":")[0] for line in notes.splitlines()] == [
        f"{arm},seed={seed}" for seed in (0, 1) for arm in ("learns", "rests")
    ]
    assert "holds: two arms" in text
    assert main(["reproduce", "fractalnet/tiny", "--scale", "smoke", "--json", "--out", str(tmp_path / "o")]) == 0
    text, notes = capsys.readouterr()
    assert json.loads(text)["seeds"] == [0, 1]
    assert notes == ""


def test_mistakes_end_with_one_line_and_status_2(capsys, tmp_path):
    for argv, says in (
        (["crescendonet/tabel2"], "did you mean crescendonet/table2"),
        (["crescendonet/table2", "--scale", "large"], "smoke, small, medium, paper"),
        (["crescendonet/table2", "--seeds", "0"], "at least 1"),
        (["crescendonet/table2", "--scale", "smoke", "--device", "tpu", "--out", str(tmp_path / "o")], "tpu"),
        (
            ["crescendonet/table2", "--data.source", "/nowhere", "--out", str(tmp_path / "o")],
            "'/nowhere': does not exist",
        ),
        (["crescendonet/table2", "--data-moved", "/nowhere", "--out", str(tmp_path / "o")], "/nowhere: no such folder"),
    ):
        assert main(["reproduce", *argv]) == 2
        error = capsys.readouterr().err.strip()
        assert says in error
        assert "\n" not in error
    assert not (tmp_path / "o").exists()
