"""GUNN's layers for inference: norms folded, everything that reads the buffer one product of matrices.

A segment's new value is W₃·h + (V + I_c)·x + b, with h what the unit's first convs make of W₁·x, V the parallel 1×1 and
I_c the old value of the segment (Eq. 5). W₁ and V + I_c stand one above the other, so the buffer is read once. Pixels
are rows (channels-last), so that this and W₃·h are plain products.

A product with few columns is far below the processor's rate, so a few segments read the buffer together, before any of
them has changed it. What a later one reads of an earlier one's new value is a sum of products too, of x and of h: its
part of x is in the later one's W₁ and V, and its part of h is added when h is known, with W₃·h in one product.

Layers with other units than :class:`~polypath.layers.gunn.layer.UpdateUnit` have the norms in their conv units
folded, and run as :func:`polypath.layers.gunn.in_place.in_place` does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.recording import recording
from polypath.fusion.draft import Draft
from polypath.fusion.folding import folded_conv, norm_as_affine
from polypath.fusion.units import FoldedConv
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn.layer import Bottleneck, GunnLayer, UpdateUnit
from polypath.layers.pointwise import PLAIN_CONVS, pixels

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
    if unit.parts[:2] != ("conv", "norm") or type(unit.conv) not in PLAIN_CONVS or unit.conv.padding_mode != "zeros":
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
        begin, *_, end = _convs(layer.units[0])
        columns = begin.conv.out_channels + (end.conv.out_channels if layer.units[0].parallel is not None else 0)
        together, every = max(1, WIDE // columns), range(layer.segments)
        self.groups = nn.ModuleList(Group(layer, every[a : a + together]) for a in every[::together])

    def forward(self, x: Tensor) -> Tensor:
        if recording():
            return self.layer(x)
        buffer = x.clone(memory_format=torch.channels_last)
        gradual = self.layer.order == "gradual"
        read = buffer if gradual else x.contiguous(memory_format=torch.channels_last)
        for group in self.groups:
            group(read, buffer)
        return buffer


class Group(nn.Module):
    """Segments that follow each other: reads maps ``(B, N, H, W)``, changes its own channels of ``buffer`` in place.

    The columns of its first product are what all segments' first convs give and then, where they have a parallel 1×1,
    all their new values but for W₃·h.
    """

    first: Tensor
    first_bias: Tensor

    def __init__(self, layer: GunnLayer, which: range) -> None:
        super().__init__()
        n, size = layer.channels, layer.channels // layer.segments
        self.channels = slice(size * which[0], size * (which[-1] + 1))
        self.given = layer.units[which[0]].parallel is not None
        inner, values = _in_terms_of_x(layer, which)
        rows = torch.cat([*inner, *values] if self.given else inner)
        self.segments, done, term = nn.ModuleList(), 0, n + 1
        for i, own, value in zip(which, inner, values, strict=True):
            segment = Segment(layer, i, slice(done, done + len(own)))
            done += len(own)
            h = slice(term, term + _convs(layer.units[i])[-1].conv.in_channels)
            term = h.stop
            if done < len(rows):
                segment.later = _like(layer, rows[done:, h].t())
            if not self.given:
                segment.last, segment.last_bias = _like(layer, value[:, h].t()), _like(layer, value[:, n])
            self.segments.append(segment)
        self.register_buffer("first", _like(layer, rows[:, :n, None, None]))
        self.register_buffer("first_bias", _like(layer, rows[:, n]))

    def forward(self, read: Tensor, buffer: Tensor) -> None:
        maps, own = pixels(F.conv2d(read, self.first, self.first_bias)), pixels(buffer)[:, self.channels]
        places = own.chunk(len(self.segments), dim=1)
        for segment, place in zip(self.segments, places, strict=True):
            segment(maps, place, buffer.shape)
        if self.given:
            own.copy_(maps[:, -own.shape[1] :])


class Segment(nn.Module):
    """One update of pixels ``(B·H·W, …)``: what its h adds to the columns after its own, or to its place."""

    later: Tensor | None
    last: Tensor | None
    last_bias: Tensor | None

    def __init__(self, layer: GunnLayer, index: int, columns: slice) -> None:
        super().__init__()
        inner = _convs(layer.units[index])[1:-1]
        self.columns, self.residual = columns, layer.residual
        self.inner = nn.Sequential(*[FoldedConv(c.conv, "relu" if "act" in c.parts else "none") for c in inner])
        for name in ("later", "last", "last_bias"):
            self.register_buffer(name, None)

    def forward(self, maps: Tensor, place: Tensor, shape: torch.Size) -> None:
        batch, _, height, width = shape
        h = maps[:, self.columns].relu().view(batch, height, width, -1).permute(0, 3, 1, 2)
        h = pixels(self.inner(h))
        if self.later is not None:
            maps[:, self.columns.stop :].addmm_(h, self.later)
        if self.last is not None and self.last_bias is not None:
            if self.residual:
                place.add_(self.last_bias).addmm_(h, self.last)
            else:
                place.copy_(torch.addmm(self.last_bias, h, self.last))


def _in_terms_of_x(layer: GunnLayer, which: range) -> tuple[list[Tensor], list[Tensor]]:
    """What each segment's first conv gives and its new value, as sums: coefficients of x, of 1 and of each one's h.

    Rows ``(columns, N + 1 + all widths of h)``. x is what the first of the segments reads.
    """
    size, like = layer.channels // layer.segments, next(layer.parameters())
    widths = [_convs(layer.units[i])[-1].conv.in_channels for i in which]
    terms = torch.eye(layer.channels + 1 + sum(widths), dtype=torch.float64, device=like.device)
    now, one = terms[: layer.channels].clone(), terms[layer.channels]

    def product(unit: ConvUnit, of: Tensor) -> Tensor:
        conv = unit.conv
        z = conv.weight.detach().flatten(1).double() @ of
        return z if conv.bias is None else z + conv.bias.detach().double()[:, None] * one

    inner, values = [], []
    for i, h in zip(which, terms[layer.channels + 1 :].split(widths), strict=True):
        begin, *_, end = _convs(layer.units[i])
        parallel, own = layer.units[i].parallel, slice(i * size, (i + 1) * size)
        inner.append(product(begin, now))
        value = product(end, h)
        if isinstance(parallel, ConvUnit):
            value = value + product(parallel, now)
        if layer.residual:
            value = value + now[own]
        values.append(value)
        if layer.order == "gradual":
            now[own] = value
    return inner, values


def _known(unit: nn.Module) -> bool:
    """Whether a unit is as the paper's and its norms are folded."""
    if type(unit) is not UpdateUnit:
        return False
    convs = [module for module in unit.modules() if isinstance(module, ConvUnit)]
    forms = {("conv", "act"), ("conv",)}
    return all(type(c) is ConvUnit and c.parts in forms and type(c.conv) in PLAIN_CONVS for c in convs)


def _convs(unit: nn.Module) -> list[ConvUnit]:
    """Those of the stacked bottlenecks."""
    assert isinstance(unit, UpdateUnit)
    stack = [unit.get_submodule(f"unit{m}") for m in range(1, unit.stacked + 1)]
    return [c for b in stack if isinstance(b, Bottleneck) for c in (b.layer1, b.layer2, b.layer3)]


def _like(layer: GunnLayer, tensor: Tensor) -> Tensor:
    return tensor.to(next(layer.parameters()).dtype).contiguous()
