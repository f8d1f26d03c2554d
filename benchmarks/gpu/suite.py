"""Runs the tests that need a GPU (``pytest -m gpu``), and reports the outcome of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.plan import Plan

FILE = Path(__file__).parents[2] / "tests/test_gpu.py"


class Outcomes:
    """A pytest plugin that collects the outcomes of tests."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.rows.append({"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)})


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    return {"tests": run}


def run() -> dict[str, Any]:
    """Run all tests that need a GPU. The error of a failed run lists the tests that failed."""
    seen = Outcomes()
    status = pytest.main(["-x", "-p", "no:cacheprovider", str(FILE)], [seen])
    failed = [row["test"] for row in seen.rows if row["outcome"] == "failed"]
    if status or failed or not seen.rows:
        raise AssertionError(f"pytest ended with status {int(status)}; failed tests: {', '.join(failed) or 'none'}")
    return {"rows": seen.rows}
