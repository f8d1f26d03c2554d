"""Networks without memory for weights, for counting parameters, paths and depths."""

from __future__ import annotations

import functools

import torch

from polypath.core.network import PathNet
from polypath.families.base import Family


@functools.cache
def shapes(spec: Family) -> PathNet:
    """Return the network of a spec on the meta device, in evaluation mode. No weights are allocated or initialised."""
    with torch.device("meta"):
        return spec.build().eval()


def millions(spec: Family) -> float:
    """Return the number of parameters of a spec's network, in millions."""
    return sum(p.numel() for p in shapes(spec).parameters()) / 1e6
