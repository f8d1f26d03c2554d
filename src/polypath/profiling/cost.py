"""Counts the exact costs of a choice: parameters, multiply-adds and activation memory.

MACs are the multiply-adds of convolutions, linear layers and other matrix products, as ``torch.utils.flop_counter``
counts them (two of its operations are one MAC). Norms, activations, pools and joins are not counted. Counting computes
no values, since the path runs on tensors without storage. The network does not change.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from polypath.core.arguments import takes
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.execute import run_steps
from polypath.core.extract import kept_modules
from polypath.core.inputs import image_batch, sides
from polypath.core.meta import weightless
from polypath.core.network import PathNet
from polypath.core.network_rules import DIAGRAM, NETWORK
from polypath.core.paths import Paths
from polypath.core.reuse import parts_of
from polypath.core.wiring import INPUT, Join, Unit, Wiring

Size = int | tuple[int, int]
Choice = Paths | str | None


# --- paths ---------------------------------------------------------------------------------------------------


@takes(net=DIAGRAM)
def count_paths(net: PathNet | Wiring, paths: Choice = None) -> int:
    """Count the paths from input to output exactly: all paths, or only those that run under a choice."""
    wiring, choice = diagram(net, paths)
    return wiring.count_paths(None if paths is None else choice)


@takes(net=DIAGRAM)
def depth_distribution(net: PathNet | Wiring, paths: Choice = None) -> dict[int, int]:
    """Count the paths of each depth in layers exactly; see :meth:`Wiring.depth_distribution`."""
    wiring, choice = diagram(net, paths)
    return wiring.depth_distribution(None if paths is None else choice)


def diagram(net: PathNet | Wiring, paths: Choice) -> tuple[Wiring, Paths]:
    """Return the wiring, and the choice in canonical form.

    Raises:
        ValueError: the choice is illegal.
    """
    if not isinstance(net, Wiring):
        return net.wiring, net.paths(paths)
    return net, Paths.parse(paths, net) if isinstance(paths, str) else Paths.of(net, paths or {})


# --- counted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one choice.

    Attributes:
        params: number of parameters of the modules (and of their variants) that run; each parameter is counted once.
        macs: multiply-adds for the complete batch. If gates decide, this is the maximum, with all loops and gates
            (:func:`polypath.profiling.expected.expected_macs` returns the average).
        activation_bytes: peak memory in bytes, apart from the weights, in eager inference. The images always count,
            since the caller keeps them. Memory inside kernels does not count.
        depth: number of layers of the shortest and of the longest path, by the layers that each unit counts for.
        paths: number of paths that run, including all paths among which gates decide.
        size: height and width of the images, in pixels.
        batch_size: number of images.
    """

    params: int
    macs: int
    activation_bytes: int
    depth: tuple[int, int]
    paths: int
    size: tuple[int, int]
    batch_size: int


@takes(net=NETWORK)
def cost(net: PathNet, paths: Choice = None, size: Size = 32, batch_size: int = 1) -> Cost:
    """Count the cost of running ``net`` under ``paths``.

    Args:
        size: image size in pixels (side, or height and width).
        batch_size: number of images.

    Raises:
        ValueError: the choice or the size is illegal, or the images are too small for the network.
    """
    return costs(net, {"": paths}, size, batch_size)[""]


def costs(net: PathNet, choices: Mapping[str, Choice], size: Size = 32, batch_size: int = 1) -> dict[str, Cost]:
    """Count the costs of several choices by name, such as ``net.named_paths()``; see :func:`cost`."""
    twin, found = weightless(net), {}
    for name, choice in choices.items():
        wiring, paths = diagram(twin, choice)
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
    """Count the MACs of every node that runs under ``paths``, in order. The key of a gate is ``switch:label``.

    Raises:
        ValueError: as for :func:`cost`.
    """
    twin = weightless(net)
    return _profile(twin, diagram(twin, paths)[1], size, batch_size).macs


def macs_of_nodes(macs: Mapping[str, int], nodes: Collection[str]) -> int:
    """Return the total MACs of ``nodes``, from the result of :func:`macs_by_node`. The MACs of a gated switch are those
    of its gates."""
    return sum(count for node, count in macs.items() if node.partition(":")[0] in nodes)


class PathMacs:
    """A counter of the MACs for one image under any choice.

    Each node is measured only once, so calls are cheap enough for every training step. The counter keeps a copy of
    ``net`` without weights, so later changes to ``net`` (shards, compiled units) do not matter.
    """

    def __init__(self, net: PathNet) -> None:
        self.net = weightless(net)
        self._by_node: dict[tuple[int, int], dict[str, int]] = {}
        self._sums: dict[tuple[Paths, tuple[int, int], frozenset[str]], tuple[int, int]] = {}

    def __call__(self, paths: Choice, size: Size, modules: Collection[str] = ()) -> tuple[int, int]:
        """Return the MACs of all nodes that run under ``paths`` at ``size``, and the MACs of those nodes among them
        whose modules are in ``modules``.

        If gates decide, all loops count, as in :func:`cost`, since training runs all loops.

        Raises:
            ValueError: as for :func:`cost`.
        """
        choice = paths if isinstance(paths, Paths) else self.net.paths(paths)  # a Paths object is canonical
        key = choice, sides(size), frozenset(modules)
        if key not in self._sums:
            if len(self._sums) >= 4096:  # training may sample many paths, and sums are cheap to recompute
                self._sums.clear()
            self._sums[key] = self._summed(*key)
        return self._sums[key]

    def by_node(self, paths: Paths, size: Size) -> dict[str, int]:
        """Return the MACs of every node that runs under ``paths``. The key of a gate is ``switch:label``."""
        return self._counted(paths, sides(size), self._modules(paths))

    def _summed(self, paths: Paths, size: tuple[int, int], modules: frozenset[str]) -> tuple[int, int]:
        module_of = self._modules(paths)
        macs = self._counted(paths, size, module_of)
        return sum(macs.values()), sum(macs[name] for name, module in module_of.items() if module in modules)

    def _modules(self, paths: Paths) -> dict[str, str]:
        """Return the nodes and gates that run, each with its module."""
        module_of: dict[str, str] = {}
        for node in self.net.wiring.alive(paths):
            module_of[node.name] = node.module if isinstance(node, Unit) else ""
            if isinstance(node, Join) and node.dynamic(paths):
                module_of |= {f"{node.name}:{gate.opens}": gate.module for gate in node.gates}
        return module_of

    def _counted(self, paths: Paths, size: tuple[int, int], nodes: Collection[str]) -> dict[str, int]:
        known = self._by_node.setdefault(size, {})
        if not known.keys() >= set(nodes):
            known |= _profile(self.net, paths, size, 1).macs
        return {name: known[name] for name in nodes}


def macs_in_turn(
    net: PathNet, choices: Sequence[Choice], size: Size = 32, *, stats: BatchNormStatistics | None = None
) -> list[int]:
    """Return the MACs of each choice for one image, if the choices run one after another. Each choice reuses the values
    that it shares with earlier choices (:func:`polypath.core.reuse.in_turn`).

    Raises:
        ValueError: as for :func:`cost`.
    """
    twin = weightless(net)
    return [
        macs_of_nodes(_profile(twin, paths, size, 1).macs, part.nodes) for paths, part in parts_of(net, choices, stats)
    ]


@dataclass(frozen=True)
class _Run:
    macs: dict[str, int]
    peak: int


def _profile(twin: PathNet, paths: Paths, size: Size, batch_size: int) -> _Run:
    x = image_batch(twin, size, batch_size)
    twin.check_images(x)
    meter, macs, counted = _Meter(twin, x), {}, 0

    def finished(name: str) -> None:
        nonlocal counted
        macs[name], counted = meter.macs - counted, meter.macs

    with torch.inference_mode(False), torch.no_grad(), meter:
        run_steps(twin, twin.plan(paths), {INPUT: x}, gates="all", finished=finished)
    return _Run(macs, meter.peak)


def _parameters(twin: PathNet, paths: Paths) -> int:
    kept = kept_modules(twin, twin.wiring.prune(paths))  # copies on the meta device are cheap
    return sum({id(p): p.numel() for module in kept.values() for p in module.parameters()}.values())


class _Meter(TorchDispatchMode):
    """A counter of MACs, and of the bytes of all live storages other than the network's."""

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
        for leaf in tree_leaves(kept):  # only the first result of a batch-norm: the other two are empty in evaluation
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
