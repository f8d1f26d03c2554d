"""GUNN's layers for inference: norms folded, everything that reads the buffer one product of matrices.

A segment's new value is W₃·h + (V + I_c)·x + b, with h what the unit's first convs make of W₁·x, V the parallel 1×1 and
I_c the old value of the segment (Eq. 5). W₁ and V + I_c stand one above the other, so the buffer is read once, and the
last product is written to the segment's place in it. Pixels are rows (channels-last), so that both are plain products.

Layers with other units than :class:`~polypath.layers.gunn.UpdateUnit` have the norms in their conv units folded, and
run as :func:`polypath.layers.gunn_fast.in_place` does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polypath.fusion.draft import Draft
from polypath.fusion.folding import folded_conv, norm_as_affine
from polypath.fusion.units import FoldedConv
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn import Bottleneck, GunnLayer, UpdateUnit


def fold_gunn(draft: Draft) -> None:
    """Fold what follows a conv in every :class:`GunnLayer`, and let the layer run by :class:`FusedGunn` if it can."""
    for node, layer in draft.units(GunnLayer):
        for unit in layer.modules():
            if type(unit) is ConvUnit:
                fold_in_place(unit)
        if all(map(_known, layer.units)):
            draft.modules[node.module] = FusedGunn(layer)


def fold_in_place(unit: ConvUnit) -> None:
    """Fold the norm that follows the conv of ``unit``, where one does; its other parts stay."""
    if unit.parts[:2] != ("conv", "norm") or type(unit.conv) is not nn.Conv2d or unit.conv.padding_mode != "zeros":
        return
    affine = norm_as_affine(unit.norm)
    if affine is not None:
        unit.conv = folded_conv(unit.conv, *affine)
        unit.parts = ("conv", *unit.parts[2:])
        del unit.norm


class FusedGunn(nn.Module):
    """A folded :class:`GunnLayer`, maps ``(B, N, H, W)`` in and out; compiled and exported networks run ``layer``."""

    def __init__(self, layer: GunnLayer) -> None:
        super().__init__()
        self.layer = layer
        self.segments = nn.ModuleList(Segment(layer, i) for i in range(layer.segments))

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.layer(x)
        buffer = x.clone(memory_format=torch.channels_last)
        rows = _rows(buffer)
        read = rows if self.layer.order == "gradual" else _rows(x.contiguous(memory_format=torch.channels_last))
        own = rows.chunk(len(self.segments), dim=1)
        for segment, values in zip(self.segments, own, strict=True):
            segment(read, values, x.shape)
        return buffer


class Segment(nn.Module):
    """One update: reads pixels ``(B·H·W, N)``, changes its own ``(B·H·W, N/P)`` in place."""

    first: Tensor
    first_bias: Tensor
    last: Tensor
    last_bias: Tensor

    def __init__(self, layer: GunnLayer, index: int) -> None:
        super().__init__()
        unit = layer.units[index]
        assert isinstance(unit, UpdateUnit)
        stack = [unit.get_submodule(f"unit{m}") for m in range(1, unit.stacked + 1)]
        convs = [c for b in stack if isinstance(b, Bottleneck) for c in (b.layer1, b.layer2, b.layer3)]
        begin, *inner, end = convs
        self.width = begin.conv.out_channels
        self.inner = nn.Sequential(*[FoldedConv(c.conv, "relu" if "act" in c.parts else "none") for c in inner])
        rows, biases = [_matrix(begin)], [_bias(begin)]
        kept = _kept(layer, index) if layer.residual else None
        last_bias = _bias(end)
        self.beside = unit.parallel is not None or (kept is not None and layer.order == "simultaneous")
        if self.beside:
            beside = torch.zeros_like(rows[0][: last_bias.numel()])
            if unit.parallel is not None:
                beside, last_bias = beside + _matrix(unit.parallel), last_bias + _bias(unit.parallel)
            rows.append(beside if kept is None else beside + kept)
            biases.append(last_bias)
        self.adds = kept is not None and not self.beside
        made = {"first": torch.cat(rows).t(), "first_bias": torch.cat(biases), "last": _matrix(end).t()}
        for name, tensor in (made | {"last_bias": last_bias}).items():
            self.register_buffer(name, tensor.to(begin.conv.weight.dtype).contiguous())

    def forward(self, read: Tensor, own: Tensor, shape: torch.Size) -> None:
        batch, _, height, width = shape
        maps = torch.addmm(self.first_bias, read, self.first)
        h = maps[:, : self.width].relu().view(batch, height, width, -1).permute(0, 3, 1, 2)
        h = _rows(self.inner(h))
        if self.beside:
            own.copy_(maps[:, self.width :].addmm_(h, self.last))
        elif self.adds:
            own.add_(self.last_bias).addmm_(h, self.last)
        else:
            own.copy_(torch.addmm(self.last_bias, h, self.last))


def _known(unit: nn.Module) -> bool:
    """Whether a unit is as the paper's and its norms are folded."""
    if type(unit) is not UpdateUnit:
        return False
    convs = [module for module in unit.modules() if isinstance(module, ConvUnit)]
    forms = {("conv", "act"), ("conv",)}
    return all(type(c) is ConvUnit and c.parts in forms and type(c.conv) is nn.Conv2d for c in convs)


def _kept(layer: GunnLayer, index: int) -> Tensor:
    """I_c: rows of the identity."""
    size = layer.channels // layer.segments
    like = next(layer.parameters())
    eye = torch.eye(layer.channels, dtype=torch.float64, device=like.device)
    return eye[index * size : (index + 1) * size]


def _rows(x: Tensor) -> Tensor:
    """Maps ``(B, C, H, W)``, channels-last, as pixels ``(B·H·W, C)``; of others a copy."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _matrix(unit: ConvUnit) -> Tensor:
    return unit.conv.weight.detach().flatten(1).double()


def _bias(unit: ConvUnit) -> Tensor:
    bias = unit.conv.bias
    return unit.conv.weight.new_zeros(unit.conv.out_channels).double() if bias is None else bias.detach().double()
