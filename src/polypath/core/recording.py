"""Is a graph being recorded?

Fast code that branches on a tensor (number of images, samples that pass a gate) must check this first: a recorder turns
such values into constants, which would fix the batch to that of the example.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def recording() -> bool:
    """Whether operators are being recorded, by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or tracing()


def exporting() -> bool:
    """Whether operators are recorded into one graph that must be valid for all inputs: by ``torch.export``, by
    ``torch.jit.trace``, which ``torch.onnx.export`` calls, or as a CUDA graph. ``torch.compile`` may split a graph.
    """
    return torch.compiler.is_exporting() or tracing() or _capturing()


def symbolic(x: Any) -> bool:
    """Whether ``x`` is a ``torch.fx`` proxy of a tensor, which has neither values nor a shape."""
    return isinstance(x, fx.Proxy)


def tracing() -> bool:
    """Whether ``torch.jit.trace`` records, in which sizes are tensors."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented there)


def _capturing() -> bool:
    if torch.compiler.is_compiling() or not torch.cuda.is_initialized():
        return False
    return torch.cuda.is_current_stream_capturing()
