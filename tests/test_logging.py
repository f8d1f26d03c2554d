"""The library tells its notes to the ``polypath`` loggers and leaves it to programs to show them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TRAINING = Path(__file__).parent / "training"

USED = """
import logging, sys
import polypath as pp
import polypath.analysis, polypath.cli, polypath.deploy, polypath.reproduce.runner, polypath.training.sweep
sys.path.insert(0, sys.argv[1])
from tiny import images, tiny
pp.train(tiny(epochs=2), sys.argv[2], data=images())
names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "polypath"]
assert "polypath.training.loop" in names
for logger in (logging.root, *map(logging.getLogger, names)):
    assert not logger.handlers, logger
    assert logger.level == (logging.WARNING if logger is logging.root else logging.NOTSET), logger
"""

WARNED = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny import images, tiny
from polypath.training import advice, loop
advice.rising_loss = lambda rows: "the loss rises: it is a test"
loop.train(tiny(epochs=2), sys.argv[2], data=images(), quiet=len(sys.argv) > 3)
"""


def python(program: str, *arguments: str | Path) -> tuple[str, str]:
    """What a program prints to standard output and standard error."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_importing_and_using_it_installs_no_handler_and_prints_nothing(tmp_path):
    assert python(USED, TRAINING, tmp_path / "run") == ("", "")


def test_a_program_without_logging_sees_each_warning_once_unless_it_is_to_be_quiet(tmp_path):
    assert python(WARNED, TRAINING, tmp_path / "told") == ("", "the loss rises: it is a test\n")
    assert python(WARNED, TRAINING, tmp_path / "quiet", "quiet") == ("", "")
    for name in ("told", "quiet"):
        assert (tmp_path / name / "log.txt").read_text().count("the loss rises") == 1
