"""The runtimes for torch on the CPU, eager or compiled. They extract paths from the network, so need no graph files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.core.extras import version_of
from polypath.deploy.runtimes import check_float

if TYPE_CHECKING:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.manifest import Step
    from polypath.deploy.runtimes import Run, StepRun


class Torch:
    """A bundle that is open in eager torch. Each path is extracted, fused, and stored in the channels-last format."""

    name, device, per_batch = "torch", "cpu", False

    def __init__(self, bundle: Bundle, threads: int, precision: str) -> None:
        import torch

        self._torch = torch
        self.version = version_of("torch")
        self._bundle, self._threads, self._precision = bundle, threads, precision
        self._nets: dict[str | int, Any] = {}
        self._lock = threading.RLock()

    def prepare(self, path: str, batch: int) -> Run:
        check_float(self._bundle, path, self.name)
        run = self._kept(path, lambda: folded(self._bundle.extracted(path)))
        return lambda x: run(x)[0]

    @cached_property
    def _parts(self) -> list[Any]:
        from polypath.deploy.climb import parts_by_step

        bundle = self._bundle
        nets = {name: (stored.net, stored.statistics) for name, stored in bundle.networks.items()}
        told = [bundle.path(rung.path) for rung in bundle.ladder]
        paths = [(path.network, nets[path.network][0].paths(path.text)) for path in told]
        return parts_by_step(nets, paths, bundle.size)

    @property
    def steps(self) -> Sequence[Step | None]:
        with self._lock:
            return [None if found is None else found[0] for found in self._parts]

    def prepare_step(self, index: int, batch: int) -> StepRun:
        from polypath.deploy.climb import part_of
        from polypath.fusion import fuse

        found = self._parts[index]
        assert found is not None, "this step shares nothing with earlier ones: run its complete path instead"
        return self._kept(index, lambda: part_of(fuse(found[1], hold=True), found[2]))

    def _kept(self, key: str | int, make: Callable[[], Any]) -> StepRun:
        from polypath.profiling.threads import torch_threads

        torch = self._torch
        bf16 = self._precision == "bf16"
        with self._lock:
            net = self._nets.get(key)
            if net is None:
                net = make().to(memory_format=torch.channels_last)
                net = self._nets[key] = self._made(net.to(torch.bfloat16) if bf16 else net)

        def ready(x: np.ndarray) -> Any:
            value = torch.from_numpy(x)
            value = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
            return value.bfloat16() if bf16 else value

        def run(*inputs: np.ndarray) -> list[np.ndarray]:
            with torch_threads(self._threads), torch.inference_mode():
                out = net(*map(ready, inputs))
                return [value.float().numpy() for value in (out if isinstance(out, tuple) else (out,))]

        return run

    def _made(self, net: Any) -> Any:
        return net


class TorchCompiled(Torch):
    """A bundle that is open in ``torch.compile``. A path is compiled on first use, which takes seconds to minutes."""

    name = "torch-compiled"

    def _made(self, net: Any) -> Any:
        return self._torch.compile(net, dynamic=True)


def folded(net: Any) -> Any:
    """Return ``net`` with its norms folded into its convs (:func:`polypath.fuse`), which is the fastest form."""
    from polypath.fusion import fuse

    return fuse(net.eval())
