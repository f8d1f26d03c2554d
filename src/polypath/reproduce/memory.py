"""Counts of the memory of path-wise training: gradients, momentum, activations saved for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from polypath.core.network import PathNet
from polypath.training.pathwise import Backward, branches, learning_parameters, path_wise_forward

READINGS: tuple[Backward, ...] = ("exact", "truncated")


def held_by_phase(net: PathNet, *, size: int, batch: int, seed: int = 0) -> dict[str, float]:
    """Count the memory in each branch's phase of path-wise training, as shares of the memory for training the whole
    network.

    ``branch N: gradients`` is the share of the branches' conv weights that are trained in the phase. Gradients and
    momentum have the same size as these weights. ``branch N: activations, exact`` and ``branch N: activations,
    truncated`` are shares of the activations saved for the backward pass. They belong to the paper's two
    interpretations (see :mod:`polypath.training.pathwise`), and are measured on random images.
    """
    shares = gradients_by_phase(net)
    generator = torch.Generator().manual_seed(seed)
    chans = net.in_chans
    x = torch.randn(batch, chans, size, size, generator=generator)
    y = torch.randint(net.num_classes, (batch,), generator=generator)
    net.train()
    whole = kept_bytes(net, x, y, lambda: net(x))
    for n in branches(net.wiring):
        for reading in READINGS:
            held = kept_bytes(net, x, y, lambda n=n, r=reading: path_wise_forward(net, x, n, backward=r))
            shares[f"branch {n}: activations, {reading}"] = held / whole
    return shares


def gradients_by_phase(net: PathNet, within: str = "") -> dict[str, float]:
    """Count only ``branch N: gradients`` of :func:`held_by_phase`, over the convs whose names begin with ``within``
    (``block2.``)."""
    branched = (name for name, _ in net.named_parameters() if "branch" in name and name.endswith("conv.weight"))
    convs = {name: net.get_parameter(name).numel() for name in branched if name.startswith(within)}
    shares: dict[str, float] = {}
    for n in branches(net.wiring):
        learning = learning_parameters(net, n)
        shares[f"branch {n}: gradients"] = sum(v for k, v in convs.items() if k in learning) / sum(convs.values())
    return shares


def kept_bytes(net: PathNet, x: Tensor, y: Tensor, forward: Callable[[], Tensor]) -> int:
    """Count the bytes that a forward pass and its loss save for the backward pass, except weights and images."""
    known = {p.untyped_storage().data_ptr() for p in net.parameters()} | {x.untyped_storage().data_ptr()}
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in known:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = functional.cross_entropy(forward(), y)
    held = sum(t.untyped_storage().nbytes() for t in kept.values())
    del loss
    return held
