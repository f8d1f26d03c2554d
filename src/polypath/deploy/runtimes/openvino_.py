"""The runtime for OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.core.extras import need, version_of
from polypath.deploy.runtimes import graph_of_step, written_steps
from polypath.deploy.runtimes.signal_stack import kept_signal_stack

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run, StepRun

KEPT = 64  # minimum number of compiled (path, batch size) pairs that are kept
KEPT_EACH = 18  # number that is kept per path: the path and its step at batches of 1, 2, 4, … 256


class OpenVino:
    """A bundle that is open in OpenVINO. A path is compiled for each batch size, since static shapes are faster."""

    name, device, per_batch = "openvino", "cpu", True

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        self._ov = need("openvino", "runtime 'openvino'")
        self.version = version_of("openvino")
        self._bundle, self._graphs = bundle, bundle.graphs
        self._options = options(threads, precision)
        self._core = self._ov.Core()
        self._compiled: OrderedDict[tuple[str | int, int], StepRun] = OrderedDict()
        self._most = max(KEPT, KEPT_EACH * len(bundle.paths))
        self._lock = threading.Lock()
        self.steps = written_steps(bundle)

    def prepare(self, path: str, batch: int) -> Run:
        run = self._kept(path, batch, lambda: str(self._graphs.file(self._bundle.path(path))))
        return lambda x: run(x)[0]

    def prepare_step(self, index: int, batch: int) -> StepRun:
        return self._kept(index, batch, lambda: graph_of_step(self._bundle, self.steps, index))

    def _kept(self, key: str | int, batch: int, file: Callable[[], str]) -> StepRun:
        with self._lock:
            run = self._compiled.get((key, batch))
            if run is None:
                run = self._compiled[key, batch] = compiled_many(self._core, file(), self._options, batch)
            self._compiled.move_to_end((key, batch))
            while len(self._compiled) > self._most:
                self._compiled.popitem(last=False)
        return run


def options(threads: int, precision: str = "f32") -> dict[str, Any]:
    """Return settings for one answer at a time. Without a precision hint, OpenVINO would use bf16 on processors that
    support it."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def compiled(core: Any, file: str, settings: dict[str, Any], batch: int | None) -> Run:
    """Compile an ONNX file with one input and one output, and return the result as a function. ``batch`` is the
    function's batch size, or None for any size.

    Raises:
        ValueError: OpenVINO cannot load the file.
    """
    run = compiled_many(core, file, settings, batch)
    return lambda x: run(x)[0]


def compiled_many(core: Any, file: str, settings: dict[str, Any], batch: int | None) -> StepRun:
    """Compile a file with several inputs, in order, and several outputs, as :func:`compiled` does.

    Raises:
        ValueError: OpenVINO cannot load the file.
    """
    try:
        model = core.read_model(file)
        if batch is not None:
            shapes = {value: value.partial_shape for value in model.inputs}
            for shape in shapes.values():
                shape[0] = batch
            model.reshape(shapes)
        with kept_signal_stack():
            request = core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise ValueError(f"{file}: OpenVINO cannot load it ({_last_line(error)})") from error
    lock = threading.Lock()  # a request serves one caller at a time
    # looked up once: the look-up, and the checks of arrays that ``infer`` gets, would take 0.04 ms
    slots, results = request.input_tensors, request.output_tensors

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with lock:
            try:
                for slot, x in zip(slots, inputs, strict=True):
                    _fill(slot, x, resize=batch is None)
                request.infer(share_outputs=True)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{file}: OpenVINO cannot run it ({_last_line(error)})") from error
            # copied, since the next call overwrites the request's buffers
            return [np.array(slot.data) for slot in results]

    return run


def _fill(slot: Any, x: np.ndarray, *, resize: bool) -> None:
    """Copy an input into a tensor of the request, and give the tensor its shape first with ``resize``."""
    if resize:
        slot.shape = x.shape
    into = slot.data
    if into.shape != x.shape:
        raise ValueError(f"an input has shape {x.shape}: must be {into.shape}")
    np.copyto(into, x, casting="same_kind")


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
