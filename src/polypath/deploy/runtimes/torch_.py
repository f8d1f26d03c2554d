"""torch on the CPU: eager, or compiled. It needs no graph files: paths are taken out of the network itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.runtimes import Run


class Torch:
    """Each path extracted and fused, channels last."""

    name, device, per_batch = "torch", "cpu", False

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        import torch

        self._torch = torch
        self.version = torch.__version__
        self._bundle, self._threads, self._precision = bundle, threads, precision
        self._nets: dict[str, Any] = {}
        self._lock = threading.Lock()

    def prepare(self, path: str, batch: int) -> Run:
        from polypath.profiling.threads import torch_threads

        torch = self._torch
        with self._lock:
            net = self._nets.get(path)
            if net is None:
                net = self._nets[path] = self._made(path)
        bf16 = self._precision == "bf16"

        def run(x: np.ndarray) -> np.ndarray:
            with torch_threads(self._threads), torch.inference_mode():
                images = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
                return net(images.bfloat16() if bf16 else images).float().numpy()

        return run

    def _made(self, path: str) -> Any:
        torch = self._torch
        net = folded(self._bundle.extracted(path)).to(memory_format=torch.channels_last)
        return net.to(torch.bfloat16) if self._precision == "bf16" else net


class TorchCompiled(Torch):
    """The same by ``torch.compile``; a path compiles when it first runs, which takes seconds to minutes."""

    name = "torch-compiled"

    def _made(self, path: str) -> Any:
        return self._torch.compile(super()._made(path), dynamic=True)


def folded(net: Any) -> Any:
    """``net`` as it is fastest: its norms in its convs (:func:`polypath.fuse`)."""
    from polypath.fusion import fuse

    return fuse(net.eval())
