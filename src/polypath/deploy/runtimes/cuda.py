"""The runtime for CUDA graphs. A path's kernels are recorded once per batch size, then replayed in a single launch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.deploy.runtimes import check_float
from polypath.deploy.runtimes.torch_ import folded

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run, StepRun

KEPT = 64  # minimum number of recorded (path, batch size) pairs that are kept
KEPT_EACH = 9  # number that is kept per path: batches of 1, 2, 4, … 256
WARMUP = 3  # runs before recording, in which kernels are chosen


class CudaGraphs:
    """A bundle that is run with CUDA graphs.

    Raises:
        ValueError: there is no CUDA device.
    """

    name, per_batch = "cuda-graphs", True

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ValueError("runtime 'cuda-graphs': there is no CUDA device; use openvino, onnxruntime or torch")
        self._torch, self._bundle, self._precision = torch, bundle, precision
        self.version = f"{torch.__version__} CUDA {torch.version.cuda}"
        self.device = torch.cuda.get_device_name()
        self._nets: dict[str, Any] = {}
        self._recorded: OrderedDict[tuple[str, int], Run] = OrderedDict()
        self._most = max(KEPT, KEPT_EACH * len(bundle.paths))
        self._lock = threading.Lock()

    @property
    def steps(self) -> Sequence[None]:
        """None for every step, since a complete path is faster than passing values between graphs via the host."""
        return [None] * len(self._bundle.ladder)

    def prepare_step(self, index: int, batch: int) -> StepRun:
        raise NotImplementedError("CUDA graphs cannot run a step: run its complete path instead")

    def prepare(self, path: str, batch: int) -> Run:
        with self._lock:
            run = self._recorded.get((path, batch))
            if run is None:
                run = self._recorded[path, batch] = self._record(path, batch)
            self._recorded.move_to_end((path, batch))
            while len(self._recorded) > self._most:
                self._recorded.popitem(last=False)
        return run

    def _record(self, path: str, batch: int) -> Run:
        check_float(self._bundle, path, self.name)
        torch, prep = self._torch, self._bundle.preparation
        if path not in self._nets:
            net = folded(self._bundle.extracted(path)).cuda().to(memory_format=torch.channels_last)
            self._nets[path] = net.bfloat16() if self._precision == "bf16" else net
        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
        shape = (batch, prep.channels, *prep.size)
        x = torch.zeros(shape, dtype=dtype, device="cuda").contiguous(memory_format=torch.channels_last)
        replay, logits = record(self._nets[path], x)
        lock = threading.Lock()

        def run(images: np.ndarray) -> np.ndarray:
            with lock:
                x.copy_(torch.from_numpy(images))
                replay()
                return logits.float().cpu().numpy()  # waits for the device

        return run


def record(net: Any, x: Any) -> tuple[Callable[[], None], Any]:
    """Record ``net`` as a CUDA graph. Return a function that runs the graph on the current values of ``x``, and the
    output tensor. ``x`` must stay at its address."""
    import torch

    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                net(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = net(x)
    return graph.replay, out
