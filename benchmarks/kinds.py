"""The kind of machine that a benchmark ran on. Each kind has a separate folder of results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import device
from polypath.profiling.instructions import instructions

RESULTS = Path(__file__).parent / "results"


def kind() -> str:
    """Return ``cuda`` if there is a GPU, else the processor's instruction set."""
    return "cuda" if device().type == "cuda" else instructions()


def folder() -> Path:
    """Return the folder of this machine's results."""
    return RESULTS / kind()
