"""Is a graph being recorded?

What is written for speed and asks a tensor for a decision (how many images there are, which samples a gate lets pass)
must ask this first: a recorder takes each answer for a constant, so that the batch would be that of the example.
"""

from __future__ import annotations

import torch


def recording() -> bool:
    """Whether operators are recorded at all: by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or _tracing()


def exporting() -> bool:
    """Whether they are recorded into one graph that must hold for all inputs: by ``torch.export`` or
    ``torch.jit.trace``, which ``torch.onnx.export`` calls. ``torch.compile`` may break a graph in two.
    """
    return torch.compiler.is_exporting() or _tracing()


def _tracing() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented there)
