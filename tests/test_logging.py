"""The library logs to the ``polypath`` loggers, and leaves it to programs to show the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys
import polypath as pp
import polypath.analysis, polypath.cli, polypath.deploy, polypath.reproduce.runner, polypath.training.sweep
from polypath.training import advice

sys.path.insert(0, sys.argv[1])
from tiny import images, tiny

pp.train(tiny(epochs=2), "well", data=images())
advice.rising_loss = lambda rows: "the loss rises: it is a test"
pp.train(tiny(epochs=2), "quiet", data=images(), quiet=True)
print("so far nothing", file=sys.stderr)
pp.train(tiny(epochs=2), "told", data=images())

names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "polypath"]
assert "polypath.training.loop" in names
for logger in (logging.root, *map(logging.getLogger, names)):
    assert not logger.handlers, logger
    assert logger.level == (logging.WARNING if logger is logging.root else logging.NOTSET), logger
"""


@pytest.mark.slow
def test_a_program_without_logging_gets_no_handler_no_notes_and_each_warning_once(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent / "training")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == "so far nothing\nthe loss rises: it is a test\n"
    assert done.stdout == ""
    assert done.returncode == 0
    for run in ("quiet", "told"):
        assert (tmp_path / run / "log.txt").read_text().count("the loss rises") == 1
