"""GUNN's layers for inference: norms folded, everything that reads the buffer one product of matrices.

A segment's new value is W₃·h + (V + I_c)·x + b, with h what the unit's first convs make of W₁·x, V the parallel 1×1 and
I_c the old value of the segment (Eq. 5). W₁ and V + I_c stand one above the other, so the buffer is read once, and the
last product is written to the segment's place in it. Pixels are rows (channels-last), so that both are plain products.

A product with few columns is far below the processor's rate, so a few segments read the buffer together, but for the
channels that the earlier of them are about to change; what those become is added when it is known.

Layers with other units than :class:`~polypath.layers.gunn.UpdateUnit` have the norms in their conv units folded, and
run as :func:`polypath.layers.gunn_fast.in_place` does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.fusion.draft import Draft
from polypath.fusion.folding import folded_conv, norm_as_affine
from polypath.fusion.units import FoldedConv
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn import Bottleneck, GunnLayer, UpdateUnit

WIDE = 72  # columns that segments which read together have at most


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
        together = max(1, WIDE // len(_reads(layer, 0)[1]))
        every = range(layer.segments)
        self.groups = nn.ModuleList(Group(layer, every[a : a + together]) for a in every[::together])

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.layer(x)
        buffer = x.clone(memory_format=torch.channels_last)
        gradual = self.layer.order == "gradual"
        read = buffer if gradual else x.contiguous(memory_format=torch.channels_last)
        for group in self.groups:
            group(read, buffer)
        return buffer


class Group(nn.Module):
    """Segments that follow each other: reads maps ``(B, N, H, W)``, changes its own channels of ``buffer`` in place."""

    first: Tensor
    first_bias: Tensor

    def __init__(self, layer: GunnLayer, which: range) -> None:
        super().__init__()
        size = layer.channels // layer.segments
        self.start = size * which[0]
        segments = [Segment(layer, i) for i in which]
        self.segments = nn.ModuleList(segments)
        matrices, biases = zip(*(_reads(layer, i) for i in which), strict=True)
        first = torch.cat(matrices)
        if layer.order == "gradual":
            for j, (segment, rows) in enumerate(zip(segments, first.chunk(len(which)), strict=True)):
                newer = slice(self.start, self.start + j * size)
                segment.newer = _like(layer, rows[:, newer].t().clone()) if j else None
                rows[:, newer] = 0.0
        self.register_buffer("first", _like(layer, first[:, :, None, None]))
        self.register_buffer("first_bias", _like(layer, torch.cat(biases)))

    def forward(self, read: Tensor, buffer: Tensor) -> None:
        maps = _rows(F.conv2d(read, self.first, self.first_bias)).chunk(len(self.segments), dim=1)
        own = _rows(buffer)[:, self.start :]
        for j, (segment, part) in enumerate(zip(self.segments, maps, strict=True)):
            segment(part, own, j, buffer.shape)


class Segment(nn.Module):
    """One update of pixels ``(B·H·W, …)``: from what its first product gave, and what the group has changed since."""

    newer: Tensor | None
    last: Tensor
    last_bias: Tensor

    def __init__(self, layer: GunnLayer, index: int) -> None:
        super().__init__()
        begin, *inner, end = _convs(layer.units[index])
        self.width = begin.conv.out_channels
        self.inner = nn.Sequential(*[FoldedConv(c.conv, "relu" if "act" in c.parts else "none") for c in inner])
        self.beside = _beside(layer, index) is not None
        self.adds = layer.residual and not self.beside
        self.register_buffer("newer", None)
        self.register_buffer("last", _like(layer, _matrix(end).t()))
        self.register_buffer("last_bias", _like(layer, _bias(end)))

    def forward(self, maps: Tensor, group: Tensor, place: int, shape: torch.Size) -> None:
        batch, _, height, width = shape
        size = len(self.last_bias)
        own = group[:, place * size : (place + 1) * size]
        if self.newer is not None:
            maps.addmm_(group[:, : place * size], self.newer)
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


def _convs(unit: nn.Module) -> list[ConvUnit]:
    """Those of the stacked bottlenecks."""
    assert isinstance(unit, UpdateUnit)
    stack = [unit.get_submodule(f"unit{m}") for m in range(1, unit.stacked + 1)]
    return [c for b in stack if isinstance(b, Bottleneck) for c in (b.layer1, b.layer2, b.layer3)]


def _reads(layer: GunnLayer, index: int) -> tuple[Tensor, Tensor]:
    """All that reads the channels for one segment, as rows of a matrix with their biases."""
    begin, *_, end = _convs(layer.units[index])
    beside = _beside(layer, index)
    if beside is None:
        return _matrix(begin), _bias(begin)
    matrix, bias = beside
    return torch.cat([_matrix(begin), matrix]), torch.cat([_bias(begin), _bias(end) + bias])


def _beside(layer: GunnLayer, index: int) -> tuple[Tensor, Tensor] | None:
    """V + I_c and V's bias, where the first product has to give them; else the old value is where the new one goes."""
    parallel = layer.units[index].parallel
    if not isinstance(parallel, ConvUnit):
        if not layer.residual or layer.order == "gradual":
            return None
        kept = _kept(layer, index)
        return kept, kept.new_zeros(len(kept))
    matrix = _matrix(parallel)
    return matrix + _kept(layer, index) if layer.residual else matrix, _bias(parallel)


def _kept(layer: GunnLayer, index: int) -> Tensor:
    """I_c: rows of the identity."""
    size = layer.channels // layer.segments
    like = next(layer.parameters())
    eye = torch.eye(layer.channels, dtype=torch.float64, device=like.device)
    return eye[index * size : (index + 1) * size]


def _like(layer: GunnLayer, tensor: Tensor) -> Tensor:
    return tensor.to(next(layer.parameters()).dtype).contiguous()


def _rows(x: Tensor) -> Tensor:
    """Maps ``(B, C, H, W)``, channels-last, as pixels ``(B·H·W, C)``; of others a copy."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _matrix(unit: ConvUnit) -> Tensor:
    return unit.conv.weight.detach().flatten(1).double()


def _bias(unit: ConvUnit) -> Tensor:
    bias = unit.conv.bias
    return unit.conv.weight.new_zeros(unit.conv.out_channels).double() if bias is None else bias.detach().double()
