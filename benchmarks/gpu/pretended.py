"""A CPU that stands in for a GPU, so that every line of code for CUDA can run without a GPU.

Inside :func:`pretended`, tensors requested on ``cuda`` are made on the CPU, and those functions of ``torch.cuda`` that
Polypath uses work. CUDA graphs are recorded and replayed as a list of calls whose outputs keep their place in memory.
Speed, autocast and compilation are not imitated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "a processor that stands for a GPU"


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """Make torch report one CUDA device inside the block."""
    with contextlib.ExitStack() as stack:
        for name, value in _ANSWERS.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compilation would need the driver
        stack.enter_context(_OnCpu())
        yield


def real() -> bool:
    """Return whether there is a real GPU."""
    return torch.cuda.is_available() and torch.cuda.CUDAGraph is not CUDAGraph


class CUDAGraph:
    """A stand-in for ``torch.cuda.CUDAGraph``: recorded calls, with the tensors that they read and returned."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], Any, dict[str, Any], Any]] = []

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class _Recorder(TorchDispatchMode):
    """A stand-in for ``torch.cuda.graph`` that records every call in its block."""

    active = 0

    def __init__(self, graph: CUDAGraph) -> None:
        super().__init__()
        self.graph = graph

    def __enter__(self) -> Any:
        _Recorder.active += 1
        return super().__enter__()

    def __exit__(self, *reason: Any) -> None:
        _Recorder.active -= 1
        super().__exit__(*reason)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.graph.calls.append((func, args, kwargs or {}, out))
        return out


class _OnCpu(TorchFunctionMode):
    """A mode that makes and moves tensors on the CPU if CUDA is requested."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.cuda, Tensor.pin_memory):
            return args[0]
        if func is Tensor.cpu:
            return args[0].clone()  # a transfer from a real GPU makes a copy
        if func is torch.device:  # torch.device only refers to a device, and makes no tensor
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_placed, (args, kwargs or {}))
        return func(*args, **kwargs)


def _placed(value: Any) -> Any:
    cuda = isinstance(value, torch.device | str) and str(value).partition(":")[0] == "cuda"
    return torch.device("cpu") if cuda else value


class _Stream:
    def wait_stream(self, other: _Stream) -> None:
        """Return at once, since all earlier work has finished already."""


_ANSWERS: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda device=None: NAME,
    "is_bf16_supported": lambda including_emulation=True: True,
    "is_initialized": lambda: True,
    "is_current_stream_capturing": lambda: _Recorder.active > 0,
    "set_sync_debug_mode": lambda mode: None,
    "synchronize": lambda device=None: None,
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "mem_get_info": lambda device=None: (2**33, 2**33),
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "set_rng_state": lambda state, device=None: None,
    "Stream": _Stream,
    "stream": lambda stream: contextlib.nullcontext(),
    "current_stream": lambda device=None: _Stream(),
    "CUDAGraph": CUDAGraph,
    "graph": _Recorder,
}
