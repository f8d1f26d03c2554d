"""``polypath sweep``: reading values, a small sweep, a second call, bad input."""

from __future__ import annotations

import json

import pytest

from polypath.cli import main
from polypath.cli.sweep import values_of

TINY = ["crescendonet-digits", "--model.widths", "4", "4", "--epochs", "1", "--data.train-images", "64"]
TINY += ["--data.validation", "0", "--batch-size", "32", "--checkpoint-every", "1", "--validate-every", "1"]


def test_values_are_json_where_they_can_be():
    assert values_of("model.depth=26,38") == ("model.depth", [26, 38])
    assert values_of("optim.lr=0.1, 0.01") == ("optim.lr", [0.1, 0.01])
    assert values_of("model.widths=[4,4],[8,8]") == ("model.widths", [(4, 4), (8, 8)])
    assert values_of("precision=fp32,bf16") == ("precision", ["fp32", "bf16"])
    for text in ("model.depth", "=3", "model.depth="):
        with pytest.raises(ValueError, match="FIELD=A,B,C"):
            values_of(text)


@pytest.mark.slow
def test_a_sweep_and_a_second_call(tmp_path, capsys):
    command = ["sweep", *TINY, "--seeds", "1", "--set", "optim.lr=0.01", "--out", str(tmp_path / "s"), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["rows"][0]["runs"] == 1
    assert first["rows"][0]["values"] == {"optim.lr": 0.01}
    assert first["failed"] == {}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == first  # finished runs are read


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--set", "model.deep=3"], "model has"),
        (["--set", "model"], "FIELD=A,B"),
        (["--seeds", "0"], "at least 1"),
        (["--model.scales", "3"], "--model.scale"),
    ],
)
def test_bad_input_is_status_2(tmp_path, capsys, wrong, told):
    assert main(["sweep", "crescendonet-digits", "--out", str(tmp_path / "s"), *wrong]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
