"""The papers' weight initialisations. In all of them, norms start at scale 1 and shift 0, and biases at 0."""

from __future__ import annotations

import torch
from torch import nn

from polypath.core.checks import check, one_of

Weighted = nn.Conv2d | nn.Linear

CONV_STD, LINEAR_STD = 0.05, 0.04  # CrescendoNet §III-B


def truncated_normal(module: Weighted) -> None:
    """Draw the weights from a normal distribution cut at two standard deviations (CrescendoNet §III-B).

    The standard deviation is 0.05 for convs and 0.04 for linear layers.
    """
    std = CONV_STD if isinstance(module, nn.Conv2d) else LINEAR_STD
    nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)


def he(module: Weighted) -> None:
    """Draw a conv's weights from a normal distribution with variance 2 / fan-out, as GUNN's code and timm do.

    A linear layer's weights are drawn uniformly from [-1 / √fan-in, 1 / √fan-in].
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.uniform_(module.weight, -(module.in_features**-0.5), module.in_features**-0.5)


def he_fan_in(module: Weighted) -> None:
    """Draw a conv's weights from a normal distribution with variance 2 / fan-in (He et al. 2015, Eq. 10; DFN's code).

    A linear layer's weights are drawn as in :func:`he`.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    else:
        he(module)


def xavier(module: Weighted) -> None:
    """Draw the weights uniformly with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    nn.init.xavier_uniform_(module.weight)


def xavier_fan_in(module: Weighted) -> None:
    """Draw the weights uniformly with variance 1 / fan-in, which is Caffe's "Xavier" (FractalNet §4.1 and its code)."""
    nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="linear")


INITS = {
    "truncated_normal": truncated_normal,
    "he": he,
    "he_fan_in": he_fan_in,
    "xavier": xavier,
    "xavier_fan_in": xavier_fan_in,
}


def initialise(net: nn.Module, scheme: str) -> None:
    """Initialise every conv and linear layer of ``net`` with the scheme ``scheme``, in the order of ``modules()``.

    Raises:
        ValueError: an unknown scheme.
    """
    check("init", scheme, one_of(*INITS))
    for module in net.modules():
        if isinstance(module, Weighted) and not module.weight.is_meta:  # meta tensors have no data
            INITS[scheme](module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pass_through(conv: nn.Conv2d) -> bool:
    """Make the first output maps of a conv copies of its input (Dirac filters). The other filters keep their weights.

    Returns whether this is possible. The conv must have stride 1, one group, an odd kernel with "same" padding, and at
    least as many output maps as input maps."""
    side = conv.kernel_size[0]
    same = conv.stride == (1, 1) and conv.kernel_size == (side, side) and conv.padding == (side // 2, side // 2)
    if not same or side % 2 == 0 or conv.groups > 1 or conv.out_channels < conv.in_channels:
        return False
    if not conv.weight.is_meta:
        with torch.no_grad():
            nn.init.dirac_(conv.weight[: conv.in_channels])
    return True
