"""What a choice costs: parameters, multiply-adds and activation memory, exactly; milliseconds, measured.

MACs are the multiply-adds of convolutions, linear layers and other products of matrices, as
``torch.utils.flop_counter`` counts them (two of its operations are one MAC); norms, activations, pools and joins are
not counted. Nothing is computed for it: the path runs on tensors without storage, and the network is left alone.
"""

from __future__ import annotations

import copy
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from polypath.meta import image_batch, sides, weightless
from polypath.network import PathNet
from polypath.paths import Paths
from polypath.plan import Step
from polypath.wiring import INPUT, Unit, Wiring

Size = int | tuple[int, int]
Choice = Paths | str | None


# --- paths ---------------------------------------------------------------------------------------------------


def count_paths(net: PathNet | Wiring, paths: Choice = None) -> int:
    """Exact number of paths from input to output; see :meth:`Wiring.count_paths`."""
    wiring, choice = _diagram(net, paths)
    return wiring.count_paths(choice)


def depth_distribution(net: PathNet | Wiring, paths: Choice = None) -> dict[int, int]:
    """Exact number of paths of each depth, in layers; see :meth:`Wiring.depth_distribution`."""
    wiring, choice = _diagram(net, paths)
    return wiring.depth_distribution(choice)


def _diagram(net: PathNet | Wiring, paths: Choice) -> tuple[Wiring, Paths]:
    wiring = net if isinstance(net, Wiring) else net.wiring
    if isinstance(paths, str):
        return wiring, Paths.parse(paths, wiring) if isinstance(net, Wiring) else net.paths(paths)
    return wiring, Paths.of(wiring, paths or Paths())


# --- counted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one choice costs.

    Attributes:
        params: parameters of the modules (and of their variants) that run, each once.
        macs: multiply-adds of the whole batch; where gates decide, of all loops and gates: the most that it can need
            (:func:`polypath.expected.expected_macs` is the average).
        activation_bytes: most bytes held at a time by anything but the weights, in eager inference. The images count
            all the time, since the caller holds them; what kernels use inside is not seen.
        depth: layers of the shortest and of the longest path, as the units declare them.
        paths: number of paths. It and ``depth`` are the diagram's: a switch that nothing is chosen for counts whole.
        size: height and width of the images, in pixels.
        batch_size: images.
    """

    params: int
    macs: int
    activation_bytes: int
    depth: tuple[int, int]
    paths: int
    size: tuple[int, int]
    batch_size: int


def cost(net: PathNet, paths: Choice = None, size: Size = 32, batch_size: int = 1) -> Cost:
    """Cost of running ``net`` under ``paths`` on ``batch_size`` images of ``size`` pixels (side, or height and width).

    Raises:
        ValueError: an illegal choice or size, images that are too small for the network.
    """
    return costs(net, {"": paths}, size, batch_size)[""]


def costs(net: PathNet, choices: Mapping[str, Choice], size: Size = 32, batch_size: int = 1) -> dict[str, Cost]:
    """Costs of several choices by name, such as ``net.named_paths()``; see :func:`cost`."""
    twin, found = weightless(net), {}
    for name, choice in choices.items():
        wiring, paths = _diagram(twin, choice)
        run = _profile(twin, paths, size, batch_size)
        depths = wiring.depth_distribution(paths)
        found[name] = Cost(
            params=_parameters(twin, paths),
            macs=sum(run.macs.values()),
            activation_bytes=run.peak,
            depth=(min(depths), max(depths)),
            paths=sum(depths.values()),
            size=sides(size),
            batch_size=batch_size,
        )
    return found


def macs_by_node(net: PathNet, paths: Choice = None, size: Size = 32, batch_size: int = 1) -> dict[str, int]:
    """MACs of every node that runs under ``paths``, in order; a gate stands there under ``switch:label``.

    Raises:
        ValueError: as :func:`cost`.
    """
    twin = weightless(net)
    return _profile(twin, _diagram(twin, paths)[1], size, batch_size).macs


@dataclass(frozen=True)
class _Run:
    macs: dict[str, int]
    peak: int


def _profile(twin: PathNet, paths: Paths, size: Size, batch_size: int) -> _Run:
    x = image_batch(twin, size, batch_size)
    twin._check(x)
    meter, macs = _Meter(twin, x), {}
    with torch.inference_mode(False), torch.no_grad(), meter:
        _walk(twin, twin.plan(paths), {INPUT: x}, meter, macs)
    return _Run(macs, meter.peak)


def _walk(
    twin: PathNet, steps: Sequence[Step], values: dict[str, Tensor], meter: _Meter, macs: dict[str, int]
) -> dict[str, Tensor]:
    """Run steps one by one, as the network itself does, but all loops of a gated switch; note the MACs of each."""
    for step in steps:
        name, before = step.node.name, meter.macs
        if not step.loops:
            twin._run([step], values, None, None)
            macs[name] = meter.macs - before
            continue
        z = values[step.loops[0].begin]
        for loop in step.loops:
            inner = {source: values[source] for source in loop.outside} | {loop.begin: z}
            if loop.gate is not None:
                before = meter.macs
                twin._call(loop.gate.module, inner[loop.gate.source])
                macs[f"{name}:{loop.label}"] = meter.macs - before
            z = _walk(twin, loop.steps, inner, meter, macs)[loop.end]
        values[name] = z
        for source in step.free:
            del values[source]
    return values


def _parameters(twin: PathNet, paths: Paths) -> int:
    wiring, variants = twin.wiring.prune(paths), {}
    for node in wiring.nodes:
        if isinstance(node, Unit) and node.variant is not None:
            variants.setdefault(node.module, set()).add(node.variant)
    kept: list[nn.Module] = []
    for path in wiring.modules:
        module = twin.get_submodule(path)
        if path in variants:
            module = copy.deepcopy(module)  # on the meta device this is cheap
            cast(Any, module).keep_variants(variants[path])
        kept.append(module)
    return sum({id(p): p.numel() for module in kept for p in module.parameters()}.values())


class _Meter(TorchDispatchMode):
    """Counts MACs, and the bytes of storages that are alive beside those of the network itself."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.macs = self.now = self.peak = 0
        self._weights = [t.untyped_storage() for t in (*net.parameters(), *net.buffers())]
        self._known = {id(storage) for storage in self._weights}
        self._hold(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        kept = out[:1] if func._overloadpacket is torch.ops.aten.native_batch_norm else out
        for leaf in tree_leaves(kept):  # in evaluation real batch-norms leave the other two results empty
            if isinstance(leaf, Tensor):
                self._hold(leaf)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # the same object for all views, as long as one of them lives
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, id(storage), size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


# --- measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Measured milliseconds of a forward in evaluation, and what they were measured on; they hold for nothing else.

    Attributes:
        p50_ms, p95_ms, min_ms, max_ms, mean_ms: over the repeats; percentiles by linear interpolation.
        repeats, warmup: measured and unmeasured runs.
        threads: torch's threads for one operation.
        device: ``cpu``, or the accelerator's name.
        torch: its version.
        size, batch_size: of the images.
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


def latency(net: PathNet, paths: Choice = None, size: Size = 32, batch_size: int = 1, **options: Any) -> Latency:
    """Measured time of ``net(x, paths=paths)``; options as for :func:`latencies`."""
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
    """Measured times of several choices by name, taken by turns (A, B, A, B, …) so that drift meets all alike.

    Args:
        net: put in evaluation mode for the measurement; its weights' type and layout are kept.
        device: where to measure; a copy is made where that is not the network's own device.
        threads: torch's threads for one operation; None leaves them as they are.
        rivals: other networks, measured whole in the same turns.

    Raises:
        ValueError: an illegal choice or size, no repeats, one name twice, images too small for a network.
    """
    nets = {"": net, **(rivals or {})}
    if twice := [name for name in choices if name in (rivals or {})]:
        raise ValueError(f"{twice[0]!r} names both a choice and a rival")
    where = torch.device(device) if device is not None else _device(net)
    threads_before = torch.get_num_threads()
    if threads is not None and threads < 1:
        raise ValueError(f"threads = {threads}: must be at least 1")
    placed = {name: n if _device(n) == where else copy.deepcopy(n).to(where) for name, n in nets.items()}
    modes = [(module, module.training) for n in placed.values() for module in n.modules()]
    tasks: dict[str, Callable[[], Any]] = {}
    for name, choice in choices.items():
        tasks[name] = _task(placed[""], _diagram(net, choice)[1], size, batch_size)
    for name in rivals or {}:
        tasks[name] = _task(placed[name], Paths(), size, batch_size)
    try:
        for n in placed.values():
            n.eval()
        torch.set_num_threads(threads or threads_before)
        used = torch.get_num_threads()
        with torch.inference_mode():
            times = interleaved(tasks, repeats, warmup, where)
    finally:
        torch.set_num_threads(threads_before)
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
    """Seconds of each task, ``repeats`` times, all tasks by turns after ``warmup`` turns that are not measured.

    On an accelerator ``device`` has to be named, so that each measurement waits for its end.

    Raises:
        ValueError: no repeats, or a negative warm-up.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats = {repeats}, warmup = {warmup}: must be at least 1 and 0")
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
    """Percentiles, extremes and mean of times in seconds, in milliseconds, by :class:`Latency`'s names."""
    ms = sorted(1e3 * s for s in seconds)

    def at(share: float) -> float:
        place = share * (len(ms) - 1)
        low = math.floor(place)
        return ms[low] + (place - low) * (ms[min(low + 1, len(ms) - 1)] - ms[low])

    return {
        "p50_ms": at(0.5),
        "p95_ms": at(0.95),
        "min_ms": ms[0],
        "max_ms": ms[-1],
        "mean_ms": math.fsum(ms) / len(ms),
    }


def device_name(device: str | torch.device) -> str:
    """``cpu``, or what the accelerator is called."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _task(net: PathNet, paths: Paths, size: Size, batch_size: int) -> Callable[[], Any]:
    x = image_batch(net, size, batch_size, seed=0)
    last = any(p.ndim == 4 and not p.is_contiguous() for p in net.parameters())
    x = x.to(memory_format=torch.channels_last) if last else x
    net._check(x)
    return lambda: net(x, paths=paths)


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _waiter(device: torch.device) -> Callable[[], None]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None
