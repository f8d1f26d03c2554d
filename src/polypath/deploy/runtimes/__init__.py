"""The runtimes for a bundle's graphs: OpenVINO, ONNX Runtime, torch (eager, compiled), CUDA graphs.

A runtime is opened once for a bundle. It prepares a path for a batch size and returns a function from images
``(N, C, H, W)``, float32 and normalised, to logits ``(N, classes)``. Its package is imported only when it is opened.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from polypath.core.checks import Rule, check, listed, one_of, optional, whole
from polypath.core.extras import installed, version_of
from polypath.profiling.cores import cores

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.manifest import Step

Run = Callable[[np.ndarray], np.ndarray]
StepRun = Callable[..., list[np.ndarray]]

NAMES = ("openvino", "onnxruntime", "torch", "torch-compiled", "cuda-graphs")
_PLACES = {
    "openvino": ("openvino_", "OpenVino"),
    "onnxruntime": ("onnxruntime_", "OnnxRuntime"),
    "torch": ("torch_", "Torch"),
    "torch-compiled": ("torch_", "TorchCompiled"),
    "cuda-graphs": ("cuda", "CudaGraphs"),
}
PRECISIONS = ("f32", "bf16")
"""Precisions in which float32 graphs and networks can run; a graph in int8 is always run in int8."""


class Runtime(Protocol):
    """A bundle in a runtime. Measured times are valid for one ``version`` and ``device`` only. With ``per_batch``, a
    path is compiled for each batch size, which takes a while on its first use."""

    name: str
    version: str
    device: str
    per_batch: bool

    def prepare(self, path: str, batch: int) -> Run:
        """The function that runs a path on batches of this size; callable from any thread."""
        ...

    @property
    def steps(self) -> Sequence[Step | None]:
        """The steps of the bundle's ladder in this runtime; None where a step runs its complete path."""
        ...

    def prepare_step(self, index: int, batch: int) -> StepRun:
        """The function that runs a step: from the values that it reads to logits and the values that it leaves."""
        ...


def candidates(bundle: Bundle) -> list[str]:
    """The runtimes that ``auto`` chooses from: installed ones that have a graph of every path.

    With a GPU, only CUDA graphs. ``torch-compiled`` takes minutes to compile, so it must be requested by name.
    """
    if installed("torch") and _has_cuda():
        return ["cuda-graphs"]
    found = [name for name in ("openvino", "onnxruntime") if "onnx" in bundle.formats and installed(name)]
    return [*found, "torch"]


def open_runtime(name: str, bundle: Bundle, threads: int | None = None, precision: str = "f32") -> Runtime:
    """Open the runtime ``name`` for a bundle.

    Args:
        threads: for one answer; None takes the cores that this process may use.
        precision: ``f32``, or ``bf16`` where the runtime supports it.

    Raises:
        ValueError: an unknown name, a bundle without graphs for it, a bad number of threads or precision.
        ImportError: it is not installed; the message says what to install.
    """
    check("runtime", name, Rule(f"auto or one of {listed(NAMES)}", one_of(*NAMES).fits))
    check_options(threads, precision)
    if name in ("openvino", "onnxruntime") and "onnx" not in bundle.formats:
        raise ValueError(f"runtime {name!r}: {bundle.folder} has no ONNX graphs; take torch, or write a bundle of it")
    module, cls = _PLACES[name]
    opener = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return opener(bundle, threads or cores(), precision)


def facts_of(name: str) -> tuple[str, str, str]:
    """Name, version and device of an installed CPU runtime, without opening it.

    Raises:
        ImportError: it is not installed.
    """
    return name, version_of(name.partition("-")[0]), "cpu"


def written_steps(bundle: Bundle) -> tuple[Step | None, ...]:
    """The steps of a bundle's ladder that have a graph."""
    steps = (rung.step for rung in bundle.ladder)
    return tuple(step if step is not None and "onnx" in step.files else None for step in steps)


def graph_of_step(bundle: Bundle, steps: Sequence[Step | None], index: int) -> str:
    """The file of a step's graph, which is checked on first use."""
    step = steps[index]
    assert step is not None, "this step has no graph: its complete path runs"
    return str(bundle.graphs.step(step))


def check_float(bundle: Bundle, path: str, runtime: str) -> None:
    """Raise ``ValueError`` for a path in int8, which ``runtime`` cannot run."""
    if (precision := bundle.path(path).precision) != "f32":
        raise ValueError(
            f"path {path!r} is in {precision}, but runtime {runtime!r} runs float32; take openvino or onnxruntime"
        )


def check_options(threads: int | None, precision: str) -> None:
    """Raise ``ValueError`` for a number of threads or a precision that no runtime accepts."""
    check("threads", threads, optional(whole(1)))
    check("precision", precision, one_of(*PRECISIONS))


def _has_cuda() -> bool:
    """Imports torch only if there may be a GPU, since that takes seconds."""
    if sys.platform == "linux" and "torch" not in sys.modules and not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Whether a driver for NVIDIA's or AMD's GPUs is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")
    return True
