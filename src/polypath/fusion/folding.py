"""Fold batch-norms into the convs before them.

conv, norm (, ReLU)     the norm's scale goes into the conv's weights, the norm's shift into the conv's bias
conv, ReLU, norm        the same, and the ReLU becomes a clamp; see :class:`~polypath.fusion.units.FoldedConv`

Dropout does nothing in evaluation and is removed. A unit that several nodes run with different norms becomes one conv
for each norm. Units of other kinds, and norms without running statistics, do not change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polypath.fusion.draft import Draft
from polypath.fusion.units import FoldedConv, empty_conv
from polypath.layers.conv import ConvUnit
from polypath.layers.lvbn import LoopUnit
from polypath.layers.pointwise import PLAIN_CONVS

PLAIN_ACTS = {nn.ReLU: None, nn.ReLU6: 6.0}  # each with its upper bound; the lower bound is 0
KINDS = (ConvUnit, LoopUnit)  # exactly these classes, because a subclass may compute anything


def fold_norms(draft: Draft) -> None:
    """Replace every conv unit by a :class:`FoldedConv` if possible."""
    made: dict[str, nn.Module] = {}
    for node, unit in draft.units(ConvUnit):
        path = node.module if node.variant is None else f"{node.module}.{node.variant}"
        folded = made.get(path) or folded_unit(unit, node.variant)
        if folded is not None:
            made[path] = folded
            draft.move_module(node, path, folded)


def folded_unit(unit: ConvUnit, variant: str | None = None) -> FoldedConv | None:
    """Fold the unit into one conv; return None if the unit is of an unknown kind."""
    if type(unit) not in KINDS or type(unit.conv) not in PLAIN_CONVS or unit.conv.padding_mode != "zeros":
        return None
    conv, low, high, acted, after = unit.conv, None, None, False, False
    scale = shift = None
    for part in unit.parts[1:]:
        module = getattr(unit, part)
        if part == "drop":
            continue
        if part == "act":
            if acted or type(module) not in PLAIN_ACTS:
                return None
            acted, after = True, scale is None
            top = PLAIN_ACTS[type(module)]
            low, high = _filled(conv, 0.0), None if top is None else _filled(conv, top)
            continue
        norm = module if variant is None else module[variant]
        affine = norm_as_affine(norm)
        if affine is None or scale is not None:
            return None
        scale, shift = affine
    if unit.parts[0] != "conv":
        return None
    folded = folded_conv(conv, scale, shift)
    if not acted:
        return FoldedConv(folded)
    assert low is not None
    if scale is None or not after:  # the norm is between conv and ReLU, or there is no norm
        return FoldedConv(folded, "relu") if high is None else FoldedConv(folded, "clamp", low, high)
    assert shift is not None
    ends = [None if bound is None else scale * bound.double() + shift for bound in (low, high)]
    return _clamped(folded, scale, *ends)


def norm_as_affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return a batch-norm's scale and shift ``(C,)`` in evaluation, as float64, or None without running statistics."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


@torch.no_grad()
def folded_conv(conv: nn.Conv2d, scale: Tensor | None, shift: Tensor | None) -> nn.Conv2d:
    """Make a conv with bias that computes ``scale · conv(x) + shift``, or ``conv(x)`` if both are None."""
    new = empty_conv(conv, conv.in_channels, conv.out_channels)
    weight, bias = conv.weight.double(), None if conv.bias is None else conv.bias.double()
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias
    if scale is not None and shift is not None:
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
    new.weight.copy_(weight)
    assert new.bias is not None
    new.bias.copy_(bias)
    return new


def _clamped(conv: nn.Conv2d, scale: Tensor, at_zero: Tensor | None, at_top: Tensor | None) -> FoldedConv:
    """Make a conv with a clamp whose bounds are the norm's outputs for the activation's lower and upper bound.

    In channels with a negative scale, the two bounds are swapped.
    """
    low, high = torch.full_like(scale, -torch.inf), torch.full_like(scale, torch.inf)
    if at_zero is not None:
        low, high = torch.where(scale >= 0, at_zero, low), torch.where(scale < 0, at_zero, high)
    if at_top is not None:
        low, high = torch.where(scale < 0, at_top, low), torch.where(scale >= 0, at_top, high)
    bounds = [None if b.isinf().all() else b.to(conv.weight.dtype) for b in (low, high)]
    return FoldedConv(conv, "clamp", *bounds)


def _filled(conv: nn.Conv2d, value: float) -> Tensor:
    return conv.weight.new_full((conv.out_channels,), value).detach()
