"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.core.extras import need
from polypath.deploy.plain_files import PlainFiles

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run


class OnnxRuntime:
    """Sessions are made when a path is first prepared; one serves all batch sizes."""

    name, device, per_batch = "onnxruntime", "cpu", False

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        if precision != "f32":
            raise ValueError("precision 'bf16': ONNX Runtime's CPU kernels are float32; take openvino")
        self._ort = need("onnxruntime", "runtime 'onnxruntime'")
        self.version = self._ort.__version__
        self._bundle, self._threads = bundle, threads
        self._files = PlainFiles(bundle.folder, bundle.manifest.files)
        self._sessions: dict[str, Any] = {}

    def prepare(self, path: str, batch: int) -> Run:
        session = self._sessions.get(path)
        if session is None:
            session = self._sessions[path] = make_session(
                str(self._files.folder / self._bundle.path(path).files["onnx"]), self._threads
            )
        (name,) = (value.name for value in session.get_inputs())

        def run(x: np.ndarray) -> np.ndarray:
            return session.run(None, {name: x})[0]

        return run


def make_session(file: str, threads: int, *, spin: bool = True) -> Any:
    """A session of one ONNX file on the CPU.

    Args:
        spin: let threads that are done wait busily for the session's next run. Where sessions take turns they would
            do it at the others' cost.

    Raises:
        ValueError: a file that ONNX Runtime does not take.
    """
    ort = need("onnxruntime", "runtime 'onnxruntime'")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exception types derive from Exception alone
        raise ValueError(f"{file}: ONNX Runtime does not take it ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
