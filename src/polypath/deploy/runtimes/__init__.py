"""Runtimes for a bundle's paths: OpenVINO, ONNX Runtime, torch (eager or compiled) and CUDA graphs.

A runtime is opened once for a bundle. It prepares a path for a batch size and returns a function from images
``(N, C, H, W)``, float32 and normalised, to logits ``(N, classes)``. A runtime's package is imported only when the
runtime is opened.
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
"""Precisions in which float32 graphs and networks can run. An int8 graph always runs in int8."""


class Runtime(Protocol):
    """A bundle that is open in a runtime. Measured times are valid only for one ``version`` and ``device``. With
    ``per_batch``, a path is compiled when it is first used at a batch size, which takes a while."""

    name: str
    version: str
    device: str
    per_batch: bool

    def prepare(self, path: str, batch: int) -> Run:
        """Return the function that runs a path on batches of this size. Any thread may call the function."""
        ...

    @property
    def steps(self) -> Sequence[Step | None]:
        """The steps of the bundle's ladder in this runtime. None stands for a step that runs its complete path."""
        ...

    def prepare_step(self, index: int, batch: int) -> StepRun:
        """Return the function that runs a step. From the values that the step reads, the function computes the logits
        and the values that the step leaves."""
        ...


def candidates(bundle: Bundle) -> list[str]:
    """Return the runtimes from which ``auto`` chooses: the installed ones for which every path has a graph.

    With a GPU, CUDA graphs are the only one. ``torch-compiled`` takes minutes to compile, so ``auto`` never chooses it.
    """
    if installed("torch") and _has_cuda():
        return ["cuda-graphs"]
    found = [name for name in ("openvino", "onnxruntime") if "onnx" in bundle.formats and installed(name)]
    return [*found, "torch"]


def open_runtime(name: str, bundle: Bundle, threads: int | None = None, precision: str = "f32") -> Runtime:
    """Open the runtime ``name`` for a bundle.

    Args:
        threads: number of threads for one answer; None means the number of cores that this process may use.
        precision: ``f32``, or ``bf16`` if the runtime supports it.

    Raises:
        ValueError: the name is unknown, the bundle has no graphs for the runtime, or the number of threads or the
            precision is invalid.
        ImportError: the runtime is not installed. The message says what to install.
    """
    check("runtime", name, Rule(f"auto or one of {listed(NAMES)}", one_of(*NAMES).fits))
    check_options(threads, precision)
    if name in ("openvino", "onnxruntime") and "onnx" not in bundle.formats:
        raise ValueError(f"runtime {name!r}: {bundle.folder} has no ONNX graphs; use torch, or write a bundle")
    module, cls = _PLACES[name]
    opener = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return opener(bundle, threads or cores(), precision)


def facts_of(name: str) -> tuple[str, str, str]:
    """Return name, version and device of an installed CPU runtime, without opening it.

    Raises:
        ImportError: the runtime is not installed.
    """
    return name, version_of(name.partition("-")[0]), "cpu"


def written_steps(bundle: Bundle) -> tuple[Step | None, ...]:
    """Return the steps of a bundle's ladder, with None for each step that has no graph."""
    steps = (rung.step for rung in bundle.ladder)
    return tuple(step if step is not None and "onnx" in step.files else None for step in steps)


def graph_of_step(bundle: Bundle, steps: Sequence[Step | None], index: int) -> str:
    """Return the file of a step's graph, which is checked on first use."""
    step = steps[index]
    assert step is not None, "this step has no graph: run its complete path instead"
    return str(bundle.graphs.step(step))


def check_float(bundle: Bundle, path: str, runtime: str) -> None:
    """Raise ``ValueError`` if a path is in int8, since ``runtime`` cannot run such a path."""
    if (precision := bundle.path(path).precision) != "f32":
        raise ValueError(
            f"path {path!r} is in {precision}, but runtime {runtime!r} runs only float32; use openvino or onnxruntime"
        )


def check_options(threads: int | None, precision: str) -> None:
    """Raise ``ValueError`` for a number of threads or a precision that no runtime accepts."""
    check("threads", threads, optional(whole(1)))
    check("precision", precision, one_of(*PRECISIONS))


def _has_cuda() -> bool:
    """Return whether CUDA is available. torch, which takes seconds to import, is imported only if a GPU is likely."""
    if sys.platform == "linux" and "torch" not in sys.modules and not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Return whether a driver for NVIDIA's or AMD's GPUs is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")
    return True
