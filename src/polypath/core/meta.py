"""Copies of modules on the meta device. Their tensors have shapes but no values, which suffices to count operations."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def weightless(net: Module) -> Module:
    """Copy ``net`` with parameters and buffers on the meta device, in evaluation mode and without hooks.

    ``net`` itself does not change.
    """
    return _twin(net, {}).eval()


def _twin(module: Module, made: dict[int, Any]) -> Module:
    """Copy the module and its submodules with meta tensors; all other attributes are shared, not copied."""
    if id(module) in made:
        return made[id(module)]
    twin = made[id(module)] = module.__class__.__new__(module.__class__)
    for name, value in vars(module).items():
        if name.endswith("_hooks"):  # the copy must not call the user's hooks
            value = OrderedDict[int, Any]()
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
