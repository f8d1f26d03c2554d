"""The runtime for ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.core.extras import need, version_of
from polypath.deploy.runtimes import graph_of_step, written_steps

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run, StepRun


class OnnxRuntime:
    """A bundle that is open in ONNX Runtime. A path's session is made on first use, and runs all batch sizes."""

    name, device, per_batch = "onnxruntime", "cpu", False

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        if precision != "f32":
            raise ValueError("precision 'bf16': ONNX Runtime has only float32 kernels on the CPU; use openvino")
        need("onnxruntime", "runtime 'onnxruntime'")
        self.version = version_of("onnxruntime")
        self._bundle, self._graphs, self._threads = bundle, bundle.graphs, threads
        self._calls: dict[str, StepRun] = {}
        self._spin = len(bundle.paths) == 1  # otherwise sessions take turns
        self.steps = written_steps(bundle)

    def prepare(self, path: str, batch: int) -> Run:
        call = self._calls.get(path)
        if call is None:
            call = self._calls[path] = self._opened(self._graphs.file(self._bundle.path(path)), spin=self._spin)
        return lambda x: call(x)[0]

    def prepare_step(self, index: int, batch: int) -> StepRun:
        file = graph_of_step(self._bundle, self.steps, index)
        if file not in self._calls:
            self._calls[file] = self._opened(Path(file), spin=False)
        return self._calls[file]

    def _opened(self, file: Path, *, spin: bool) -> StepRun:
        return caller(make_session(str(file), self._threads, spin=spin), file)


def make_session(file: str, threads: int, *, spin: bool = True) -> Any:
    """Make a session for one ONNX file on the CPU.

    Args:
        spin: whether idle threads busy-wait for the session's next run. A run is then faster, but a run of another
            session can take ten times as long, since the waiting threads occupy the cores.

    Raises:
        ValueError: ONNX Runtime cannot load the file.
    """
    ort = need("onnxruntime", "runtime 'onnxruntime'")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.log_severity_level = 4  # failures are raised, so they need no log
    try:
        return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has exceptions that derive only from Exception
        raise ValueError(f"{file}: ONNX Runtime cannot load it ({_first_line(error)})") from error


def caller(session: Any, file: Path) -> Callable[..., list[np.ndarray]]:
    """Return a session as a function of its inputs, in order.

    The function raises ``ValueError`` if the session cannot run these inputs.
    """
    names = [value.name for value in session.get_inputs()]

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(None, dict(zip(names, inputs, strict=True)))
        except Exception as error:  # ONNX Runtime has exceptions that derive only from Exception
            raise ValueError(f"{file}: ONNX Runtime cannot run it ({_first_line(error)})") from error

    return call


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
