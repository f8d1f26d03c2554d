"""Results on standard output, notes on standard error."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from polypath import cli
from polypath.cli.notes import notes

TINY = ["crescendonet-digits", "--model.widths", "4", "4", "--model.hidden", "8", "--epochs", "3", "--device", "cpu"]
TINY += ["--data.no-cache", "--data.train-images", "96", "--data.test-images", "40", "--data.validation", "0"]
LOG = logging.getLogger("polypath.somewhere")
RISES = "the loss rises: it is a test"


@pytest.fixture
def rising(monkeypatch):
    """Each epoch logs a warning."""
    monkeypatch.setattr("polypath.training.advice.rising_loss", lambda rows: RISES)


def test_training_without_a_terminal_logs_a_line_per_epoch(capsys, tmp_path):
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    begun, *epochs = err.splitlines()
    assert begun.startswith("crescendonet-digits: 3 epochs of ")
    assert begun.endswith(f" on cpu, from the beginning, into {tmp_path / 'run'}")
    assert [line[:10] for line in epochs] == ["epoch 1/3 ", "epoch 2/3 ", "epoch 3/3 "]
    assert "train error" in err
    assert "test error" in out
    assert "epoch 1/3" not in out
    assert not (tmp_path / "run" / "log.txt").exists()
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr() == (out, f"{tmp_path / 'run'} is already finished\n")
    assert cli.main(["resume", str(tmp_path / "run"), "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_a_warning_comes_once_and_is_in_the_runs_log(capsys, tmp_path, rising):
    theirs = logging.StreamHandler(sys.stderr)  # as with packages that configure the root logger
    logging.root.addHandler(theirs)
    try:
        assert cli.main(["train", *TINY, "--out", str(tmp_path / "run")]) == 0
    finally:
        logging.root.removeHandler(theirs)
    out, err = capsys.readouterr()
    assert f"note: {RISES}" in out  # part of the result
    assert [line for line in err.splitlines() if RISES in line] == [f"warning: {RISES}"]
    assert [line.split("  ", 1)[1] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()] == [RISES]


def test_with_json_standard_error_has_only_errors(capsys, tmp_path, rising):
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert RISES in (tmp_path / "run" / "log.txt").read_text()


def test_loggers_are_left_as_they_were(capsys):
    logger = logging.getLogger("polypath")
    before = logger.handlers.copy(), logger.level, logger.propagate
    assert cli.main(["recipes", "nothing-of-this-name"]) == 2
    with notes(as_json=False):
        assert len(logger.handlers) == len(before[0]) + 1
    assert (logger.handlers, logger.level, logger.propagate) == before


@pytest.mark.parametrize(
    ("as_json", "rank", "told"),
    [
        (False, "0", "note\nwarning: careful\nerror: broken\n"),
        (True, "0", "error: broken\n"),
        (False, "1", "error: broken\n"),
    ],
)
def test_what_is_shown(as_json, rank, told, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    with notes(as_json=as_json):
        LOG.debug("detail")
        LOG.info("note")
        LOG.warning("careful")
        LOG.error("broken")
    assert capsys.readouterr() == ("", told)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_notes_stand_above_the_bar_and_results_are_still_apart(tmp_path, capsys, monkeypatch, rising):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("polypath.training.progress.CONSOLE", Console(stderr=True, width=150))
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "run")]) == 0
    shown = terminal.getvalue()
    (warned,) = [line for line in shown.splitlines() if RISES in line]
    assert "WARNING" in warned
    assert "epoch" not in warned  # on a separate line, not after the bar
    assert any("epoch 3/3" in line and "left" in line for line in shown.splitlines())
    assert "INFO" not in shown  # the bar shows epochs
    out = capsys.readouterr().out
    assert out.startswith("crescendonet-digits: test error")
    assert "\x1b" not in out
