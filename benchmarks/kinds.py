"""The kind of machine that a benchmark ran on; each kind has its own folder of results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import device
from polypath.profiling.instructions import instructions

RESULTS = Path(__file__).parent / "results"


def kind() -> str:
    """``cuda``, or the processor's instruction set."""
    return "cuda" if device().type == "cuda" else instructions()


def folder() -> Path:
    """The folder of this machine's results."""
    return RESULTS / kind()
