"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.core.extras import need

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run

KEPT = 64  # compiled (path, batch size) pairs


class OpenVino:
    """A path is compiled anew for each batch size: static shapes are what its kernels are fast on."""

    name, device, per_batch = "openvino", "cpu", True

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        self._ov = need("openvino", "runtime 'openvino'")
        self.version = str(self._ov.__version__).partition("-")[0]
        self._bundle, self._graphs = bundle, bundle.graphs
        self._options = options(threads, precision)
        self._core = self._ov.Core()
        self._compiled: OrderedDict[tuple[str, int], Run] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, path: str, batch: int) -> Run:
        with self._lock:
            run = self._compiled.get((path, batch))
            if run is None:
                file = self._graphs.file(self._bundle.path(path))
                run = self._compiled[path, batch] = compiled(self._core, str(file), self._options, batch)
            self._compiled.move_to_end((path, batch))
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return run


def options(threads: int, precision: str = "f32") -> dict[str, Any]:
    """Settings for one answer at a time. Without the precision hint OpenVINO takes bf16 where a processor has it."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def compiled(core: Any, file: str, settings: dict[str, Any], batch: int | None) -> Run:
    """A function of one ONNX file, for batches of one size or, with None, of any.

    Raises:
        ValueError: a file that OpenVINO does not take.
    """
    try:
        model = core.read_model(file)
        if batch is not None:
            shape = model.input(0).partial_shape
            shape[0] = batch
            model.reshape(shape)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise ValueError(f"{file}: OpenVINO does not take it ({_last_line(error)})") from error
    lock = threading.Lock()  # a request serves one caller at a time

    def run(x: np.ndarray) -> np.ndarray:
        with lock:
            try:
                result = request.infer([x], share_inputs=True, share_outputs=True)
            except RuntimeError as error:
                raise ValueError(f"{file}: OpenVINO cannot run it ({_last_line(error)})") from error
            return np.array(result[0])  # its buffer is the request's own, and is overwritten by the next call

    return run


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
