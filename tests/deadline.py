"""``--deadline SECONDS``: skips tests that would start later, so that a run of the slow tests fits its time."""

from __future__ import annotations

import time

import pytest

STARTED = time.monotonic()
REASON = "the time of --deadline is over"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deadline", type=float, metavar="SECONDS", help="skip tests that would start later than this")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    deadline = item.config.getoption("--deadline")
    if deadline is not None and time.monotonic() - STARTED > deadline:
        pytest.skip(REASON)


def pytest_terminal_summary(terminalreporter) -> None:
    late = sum(REASON in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if late:
        terminalreporter.write_line(f"{late} tests were not run: {REASON}")
