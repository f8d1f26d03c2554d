"""Tests of whether a graph is being recorded.

Code that branches on a tensor (number of images, samples that pass a gate) must make these tests first. A recorder
turns such values into constants, so the graph would be valid only for the example batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def recording() -> bool:
    """Return whether operators are being recorded, by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or tracing()


def exporting() -> bool:
    """Return whether operators are being recorded into one graph that must be valid for all inputs.

    This is the case in ``torch.export``, in ``torch.jit.trace``, which ``torch.onnx.export`` calls, and in the capture
    of a CUDA graph. It is not the case in ``torch.compile``, which may split a graph.
    """
    return torch.compiler.is_exporting() or tracing() or _capturing()


def symbolic(x: Any) -> bool:
    """Return whether ``x`` is a ``torch.fx`` proxy of a tensor, which has neither values nor a shape."""
    return isinstance(x, fx.Proxy)


def tracing() -> bool:
    """Return whether ``torch.jit.trace`` is recording. If so, sizes are tensors."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented under this name)


def _capturing() -> bool:
    if torch.compiler.is_compiling() or not torch.cuda.is_initialized():
        return False
    return torch.cuda.is_current_stream_capturing()
