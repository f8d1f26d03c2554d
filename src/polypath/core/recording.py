"""Is a graph being recorded?

What is written for speed and asks a tensor for a decision (how many images there are, which samples a gate lets pass)
must ask this first: a recorder takes each answer for a constant, so that the batch would be that of the example.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def recording() -> bool:
    """Whether operators are recorded at all: by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or _tracing()


def exporting() -> bool:
    """Whether they are recorded into one graph that must hold for all inputs: by ``torch.export`` or
    ``torch.jit.trace``, which ``torch.onnx.export`` calls. ``torch.compile`` may break a graph in two.
    """
    return torch.compiler.is_exporting() or _tracing()


def symbolic(x: Any) -> bool:
    """Whether ``x`` only stands for a tensor, in ``torch.fx``: it has neither values nor a shape to ask for."""
    return isinstance(x, fx.Proxy)


def _tracing() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented there)
