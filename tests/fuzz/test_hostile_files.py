"""Files from others, changed at random: an answer or one line that says what is wrong, soon and in little memory."""

from __future__ import annotations

import resource

import pytest

from fuzz.hostile_files import run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("cases", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_hostile_files_are_refused(cases, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    run(1, 8, tmp_path / "warm" if (tmp_path / "warm").mkdir() is None else tmp_path)  # libraries take memory once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "files").mkdir()
    assert run(0, cases, tmp_path / "files") == []
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 300
