"""Which kind of machine a benchmark ran on: results of each have a folder of their own."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import device
from polypath.profiling.instructions import instructions

RESULTS = Path(__file__).parent / "results"


def kind() -> str:
    """``cuda``, or the processor's kind of instructions."""
    return "cuda" if device().type == "cuda" else instructions()


def folder() -> Path:
    """Where this machine's results go."""
    return RESULTS / kind()
