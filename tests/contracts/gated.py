"""Gated networks whose gates tell samples apart."""

from __future__ import annotations

import torch

from contracts.small import small_net
from polypath.layers.gates import GateUnit


def undecided(name: str, seed: int = 0):
    """A small gated network whose gates tell samples apart, and images."""
    net = small_net(name).eval()
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, 24, 24, generator=g) * torch.linspace(0.2, 3.0, 12)[:, None, None, None]
    for module in net.modules():
        if isinstance(module, GateUnit):
            torch.nn.init.normal_(module.last.weight, std=1.0, generator=g)
            torch.nn.init.zeros_(module.last.bias)
    with torch.inference_mode():  # each gate opens for about half of who reaches it
        for module in net.modules():
            if isinstance(module, GateUnit):
                seen: list[torch.Tensor] = []
                hook = module.register_forward_hook(lambda *a, seen=seen: seen.append(a[-1][:, 1] - a[-1][:, 0]))
                net(x)
                hook.remove()
                if seen:
                    found = torch.cat(seen).sort().values
                    middle = len(found) // 2  # between two samples: on one of them rounding would decide
                    module.last.bias[1] -= found[max(middle - 1, 0) : middle + 1].mean()
    return net, x
