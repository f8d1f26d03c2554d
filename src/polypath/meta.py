"""Networks without weights: shapes on the meta device, to count and to try with; nothing is computed or copied."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from polypath.network import PathNet
from polypath.wiring import INPUT, Unit

Module = TypeVar("Module", bound=nn.Module)


def weightless(net: Module) -> Module:
    """A copy of ``net`` with parameters and buffers on the meta device, in evaluation mode and without hooks.

    ``net`` itself is left alone.
    """
    return _twin(net, {}).eval()


def _twin(module: Module, made: dict[int, Any]) -> Module:
    """The module anew, with its submodules and the like of its tensors; all other attributes are shared, not copied."""
    if id(module) in made:
        return made[id(module)]
    twin = made[id(module)] = module.__class__.__new__(module.__class__)
    for name, value in vars(module).items():
        if name.endswith("_hooks"):  # they are not ours to call
            value = OrderedDict()
        elif name == "_modules":
            value = {key: child if child is None else _twin(child, made) for key, child in value.items()}
        elif name in ("_parameters", "_buffers"):
            value = {key: t if t is None else _like(t, made) for key, t in value.items()}
        twin.__dict__[name] = value
    return twin


def _like(tensor: Tensor, made: dict[int, Any]) -> Tensor:
    if id(tensor) not in made:
        empty = torch.empty_like(tensor, device="meta")
        shell = nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        made[id(tensor)] = shell
    return made[id(tensor)]


def sides(size: Any) -> tuple[int, int]:
    """Height and width of images given by their side, or by both.

    Raises:
        ValueError: anything else than one or two positive numbers of pixels.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in pair):
        raise ValueError(f"size {size!r}: give a side in pixels, or (height, width)")
    return pair


def image_batch(net: PathNet, size: Any = 32, batch_size: int = 1, *, seed: int | None = None) -> Tensor:
    """Images ``(N, C, H, W)`` in the type and on the device of ``net``'s weights; drawn from ``seed``, else empty.

    Raises:
        ValueError: a bad size or batch size.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size {batch_size!r}: must be a whole number of at least 1")
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    shape = (batch_size, in_chans(net), *sides(size))
    if seed is None or like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(like)


def in_chans(net: PathNet) -> int:
    """Channels of the images that ``net`` takes, by its config or else by the first conv that reads them."""
    if (known := net.config.get("arguments", {}).get("in_chans")) is not None:
        return int(known)
    return next((conv.in_channels for _, conv in first_convs(net)), 3)


def first_convs(net: PathNet) -> list[tuple[str, nn.Conv2d]]:
    """The convs that read the images, with their names: the first one of every unit that does."""
    found: dict[str, nn.Conv2d] = {}
    for node in net.wiring.nodes:
        if isinstance(node, Unit) and node.source == INPUT:
            for name, module in net.get_submodule(node.module).named_modules(prefix=node.module):
                if isinstance(module, nn.Conv2d):
                    found[name] = module
                    break
    return list(found.items())


def feature_chans(net: PathNet) -> int:
    """Channels of what ``net``'s head reads."""
    twin = weightless(net)
    with torch.no_grad():
        return int(twin.forward_features(image_batch(twin, max(twin.min_size, 1))).shape[1])
