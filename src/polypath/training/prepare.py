"""A network made ready for a run: its norms, its device and layout, compiled units, shards."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import nn

from polypath.core.network import PathNet
from polypath.layers.conv import ConvUnit
from polypath.layers.ghost import GhostBatchNorm2d, SyncBatchNorm2d, ghost_norms, sync_norms
from polypath.layers.gunn.layer import GunnLayer
from polypath.training.distributed import World
from polypath.training.recipe import Recipe

GRAPHS = 1000


def prepare(net: PathNet, recipe: Recipe, device: torch.device, world: World) -> PathNet:
    """Give ``net`` the batch-norms that the recipe asks for, and put it on the device in its layout.

    Under FSDP2 ``channels_last`` is the layout of the images and so of the maps, not of the weights.

    Raises:
        ValueError: batch-norms that this network cannot have.
    """
    if recipe.parallel.batch_norm == "ghost":
        ghost_norms(net, recipe.parallel.ghost_images)
    elif recipe.parallel.batch_norm == "sync" and world.size > 1:
        sync_norms(net)
    _check_norms(net, recipe.parallel.batch_norm)
    net.to(device)
    if recipe.channels_last and recipe.parallel.strategy != "fsdp":  # FSDP2 shards weights in torch's own layout only
        net.to(memory_format=torch.channels_last)
    return net


def _check_norms(net: PathNet, batch_norm: str) -> None:
    gated = any(join.gates for join in net.wiring.joins.values())
    units = [module for module in net.modules() if getattr(module, "takes_mask", False)] if gated else []
    if any(isinstance(module, GhostBatchNorm2d | SyncBatchNorm2d) for unit in units for module in unit.modules()):
        raise ValueError(
            f"parallel.batch_norm = {batch_norm!r}: behind this network's gates only the samples let pass count, which "
            "is known for plain batch-norm; take 'rank', or build the network without gates"
        )


def compile_units(net: PathNet, *, layers: bool | None = None, **options: Any) -> int:
    """Compile each conv unit of ``net`` in place, one by one, so that every path runs the same compiled code.

    Units of like shapes share a graph; there is one for each shape, batch size and mode. Pools and linear layers run
    as they are; on a CPU so do GUNN's layers, with their own backward. Elsewhere (``layers``) a GUNN layer is one
    graph, so that its units' many small kernels are few; it then runs its reference, which holds more for going back.

    Returns:
        The number of units and layers.
    """
    modules = list(map(net.get_submodule, net.wiring.modules))
    units: list[nn.Module] = [m for m in modules if isinstance(m, ConvUnit)]
    if layers is None:
        layers = any(p.device.type != "cpu" for p in net.parameters())
    if layers:
        units += [m for m in modules if isinstance(m, GunnLayer)]
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 100 * GRAPHS)  # of all networks' units
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = GRAPHS
    else:  # torch 2.11 has it for the whole process only
        dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    for unit in units:
        unit.compile(dynamic=False, fullgraph=True, **options)
    return len(units)


def shard(net: PathNet, world: World) -> PathNet:
    """Shard every unit of ``net`` over the ranks (FSDP2), in place.

    Raises:
        ValueError: there is only this process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if world.size == 1:
        raise ValueError("parallel.strategy = 'fsdp': needs several processes; start them with torchrun, or take 'ddp'")
    mesh = init_device_mesh(next(net.parameters()).device.type, (world.size,))
    for module in map(net.get_submodule, net.wiring.modules):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh, reshard_after_forward=False)
    fully_shard(net, mesh=mesh)
    return net
