"""Measures the time of a forward pass under a choice, in milliseconds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from polypath.core.arguments import takes
from polypath.core.checks import check, optional, whole
from polypath.core.inputs import image_batch, sides
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths
from polypath.profiling.cost import Choice, Size, diagram
from polypath.profiling.threads import torch_threads


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Measured milliseconds of a forward pass in evaluation mode, and the conditions of the measurement.

    Attributes:
        p50_ms, p95_ms, min_ms, max_ms, mean_ms: statistics over the repeats. Percentiles use linear interpolation.
        repeats, warmup: number of measured runs, and of unmeasured runs before them.
        threads: number of threads that torch uses for one operation.
        device: ``cpu``, or the accelerator's name.
        torch: version of torch.
        size, batch_size: image size in pixels, and number of images.
    """

    p50_ms: float
    p95_ms: float
    min_ms: float
    max_ms: float
    mean_ms: float
    repeats: int
    warmup: int
    threads: int
    device: str
    torch: str
    size: tuple[int, int]
    batch_size: int


@takes(net=NETWORK)
def latency(net: PathNet, paths: Choice = None, size: Size = 32, batch_size: int = 1, **options: Any) -> Latency:
    """Measure the time of ``net(x, paths=paths)``. The options are those of :func:`latencies`."""
    return latencies(net, {"": paths}, size, batch_size, **options)[""]


def latencies(
    net: PathNet,
    choices: Mapping[str, Choice],
    size: Size = 32,
    batch_size: int = 1,
    *,
    device: str | torch.device | None = None,
    threads: int | None = None,
    repeats: int = 50,
    warmup: int = 5,
    rivals: Mapping[str, PathNet] | None = None,
) -> dict[str, Latency]:
    """Measure the times of several choices by name. The choices alternate (A, B, A, B, …), so that drift affects all of
    them equally.

    Args:
        net: the network, put in evaluation mode for the measurement. The type and layout of its weights are kept.
        device: the device to measure on. If the network is on another device, a copy is measured.
        threads: number of threads that torch uses for one operation; None means no change.
        rivals: other complete networks, which are measured in the same turns.

    Raises:
        ValueError: a choice or the size is illegal, there are no repeats, a name occurs twice, or the images are too
            small.
    """
    nets = {"": net, **(rivals or {})}
    if twice := [name for name in choices if name in (rivals or {})]:
        raise ValueError(f"{twice[0]!r} is the name of both a choice and a rival")
    where = torch.device(device) if device is not None else _device(net)
    check("threads", threads, optional(whole(1)))
    placed = {name: n if _device(n) == where else copy.deepcopy(n).to(where) for name, n in nets.items()}
    modes = [(module, module.training) for n in placed.values() for module in n.modules()]
    tasks: dict[str, Callable[[], Any]] = {}
    for name, choice in choices.items():
        tasks[name] = _task(placed[""], diagram(net, choice)[1], size, batch_size)
    for name in rivals or {}:
        tasks[name] = _task(placed[name], Paths(), size, batch_size)
    try:
        for n in placed.values():
            n.eval()
        with torch_threads(threads), torch.inference_mode():
            used = torch.get_num_threads()
            times = interleaved(tasks, repeats, warmup, where)
    finally:
        for module, training in modes:
            module.training = training
    shared: dict[str, Any] = {"repeats": repeats, "warmup": warmup, "threads": used, "device": device_name(where)}
    shared |= {"torch": torch.__version__, "size": sides(size), "batch_size": batch_size}
    return {name: Latency(**summary(seconds), **shared) for name, seconds in times.items()}


def interleaved(
    tasks: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 3,
    device: str | torch.device | None = None,
) -> dict[str, list[float]]:
    """Measure the seconds of each task ``repeats`` times. The tasks alternate, and the first ``warmup`` turns are not
    measured.

    On an accelerator, ``device`` must be given, so that each measurement waits for the end of its task.

    Raises:
        ValueError: there are no repeats, or ``warmup`` is negative.
    """
    check("repeats", repeats, whole(1))
    check("warmup", warmup, whole(0))
    wait = _waiter(torch.device(device or "cpu"))
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warmup + repeats):
        for name, task in tasks.items():
            wait()
            start = time.perf_counter()
            task()
            wait()
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return the statistics in milliseconds of times in seconds, under the field names of :class:`Latency`."""
    ms = 1e3 * np.asarray(seconds)
    p50, p95 = np.percentile(ms, (50, 95))
    found = {"p50_ms": p50, "p95_ms": p95, "min_ms": ms.min(), "max_ms": ms.max(), "mean_ms": ms.mean()}
    return {name: float(value) for name, value in found.items()}


def device_name(device: str | torch.device) -> str:
    """Return ``cpu``, or the accelerator's name."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _task(net: PathNet, paths: Paths, size: Size, batch_size: int) -> Callable[[], Any]:
    x = image_batch(net, size, batch_size, seed=0)
    last = any(p.ndim == 4 and not p.is_contiguous() for p in net.parameters())
    x = x.to(memory_format=torch.channels_last) if last else x
    net.check_images(x)
    return lambda: net(x, paths=paths)


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _waiter(device: torch.device) -> Callable[[], None]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None
