"""Prepare a network for a run: replace norms, move it to the device, set the memory layout, compile units, shard
weights."""

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
    """Replace the batch-norms of ``net`` by the recipe's kind, and move ``net`` to the device, in the recipe's memory
    layout. Under FSDP2, ``channels_last`` applies to images and feature maps, but not to the weights.

    Raises:
        ValueError: the network does not support this kind of batch-norm.
    """
    if recipe.parallel.batch_norm == "ghost":
        ghost_norms(net, recipe.parallel.ghost_images)
    elif recipe.parallel.batch_norm == "sync" and world.size > 1:
        sync_norms(net)
    _check_norms(net, recipe.parallel.batch_norm)
    net.to(device)
    if recipe.channels_last and recipe.parallel.strategy != "fsdp":  # FSDP2 shards only weights in the default layout
        net.to(memory_format=torch.channels_last)
    return net


def _check_norms(net: PathNet, batch_norm: str) -> None:
    gated = any(join.gates for join in net.wiring.joins.values())
    units = [module for module in net.modules() if getattr(module, "takes_mask", False)] if gated else []
    if any(isinstance(module, GhostBatchNorm2d | SyncBatchNorm2d) for unit in units for module in unit.modules()):
        raise ValueError(
            f"parallel.batch_norm = {batch_norm!r}: behind this network's gates, batch-norms use only the samples that "
            "pass, which only 'rank' supports; use 'rank', or build the network without gates"
        )


def compile_units(net: PathNet, *, layers: bool | None = None, **options: Any) -> int:
    """Compile each conv unit of ``net`` separately and in place, so that all paths run the same compiled code.

    Units with equal shapes share a graph. There is one graph for each shape, batch size and mode (training or
    evaluation). Pooling and linear layers are not compiled. GUNN's layers, which have a custom backward pass, are not
    compiled on a CPU. On other devices, or with ``layers``, a GUNN layer is compiled to one graph, which fuses the
    layer's many small kernels. The layer then runs the reference implementation, which stores more activations for the
    backward pass.

    Returns:
        The number of compiled units and layers.
    """
    modules = list(map(net.get_submodule, net.wiring.modules))
    units: list[nn.Module] = [m for m in modules if isinstance(m, ConvUnit)]
    if layers is None:
        layers = any(p.device.type != "cpu" for p in net.parameters())
    if layers:
        units += [m for m in modules if isinstance(m, GunnLayer)]
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 100 * GRAPHS)  # over all networks
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = GRAPHS
    else:  # in torch 2.11 this limit is for the complete process
        dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    for unit in units:
        unit.compile(dynamic=False, fullgraph=True, **options)
    return len(units)


def shard(net: PathNet, world: World) -> PathNet:
    """Shard every unit of ``net`` over the ranks (FSDP2), in place.

    Raises:
        ValueError: there is only one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if world.size == 1:
        raise ValueError("parallel.strategy = 'fsdp': needs several processes; start them with torchrun, or use 'ddp'")
    mesh = init_device_mesh(next(net.parameters()).device.type, (world.size,))
    for module in map(net.get_submodule, net.wiring.modules):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh, reshard_after_forward=False)
    fully_shard(net, mesh=mesh)
    return net
