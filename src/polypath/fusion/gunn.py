"""GUNN's layers for inference: norms are folded, and one matrix product computes everything that reads the buffer.

A segment's new value is W₃·h + (V + I_c)·x + b. Here x is the buffer, h is the output of the unit's inner convs for
W₁·x, V is the parallel 1×1 conv, and I_c selects the segment's old value (Eq. 5). The rows of W₁ and V + I_c are
stacked, so the buffer is read once. Pixels are rows (channels-last), so this product and W₃·h are matrix products.

A product with few columns runs far below the processor's peak rate. So a few segments read the buffer together, before
any of them changes it. A later segment reads an earlier segment's new value, which is a sum of a term in x and a term
in h. The term in x goes into the later segment's W₁ and V. The term in h is added when h is known, in one product with
W₃·h.

In layers with units other than :class:`~polypath.layers.gunn.layer.UpdateUnit`, only the norms of conv units are
folded. :func:`polypath.layers.gunn.in_place.in_place` runs these layers.
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

WIDE = 72  # maximum number of columns of the segments that read the buffer together


def fold_gunn(draft: Draft) -> None:
    """Fold the norms after convs in every :class:`GunnLayer`; replace the layer by :class:`FusedGunn` if possible."""
    for node, layer in draft.units(GunnLayer):
        for unit in layer.modules():
            if type(unit) is ConvUnit:
                fold_in_place(unit)
        if all(map(_known, layer.units)):
            draft.modules[node.module] = FusedGunn(layer)


def fold_in_place(unit: ConvUnit) -> None:
    """Fold the norm after the conv of ``unit``, if there is a norm. Other parts do not change."""
    if unit.parts[:2] != ("conv", "norm") or type(unit.conv) not in PLAIN_CONVS or unit.conv.padding_mode != "zeros":
        return
    affine = norm_as_affine(unit.norm)
    if affine is not None:
        unit.conv = folded_conv(unit.conv, *affine)
        unit.parts = ("conv", *unit.parts[2:])
        del unit.norm


class FusedGunn(nn.Module):
    """A folded :class:`GunnLayer`, from ``(B, N, H, W)`` to ``(B, N, H, W)``. Recorded graphs run ``layer`` instead."""

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
    """A group of consecutive segments that read maps ``(B, N, H, W)`` together and update ``buffer`` in place.

    The columns of the first product are the outputs of all segments' first convs. With a parallel 1×1 conv, further
    columns are the segments' new values without W₃·h.
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
    """An update of one segment, on pixels ``(B·H·W, …)``. It computes h, and adds the terms in h to the columns of
    later segments or to the segment's channels."""

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
    """Express each segment's first conv output and new value by their coefficients of x, of 1 and of each h.

    Each matrix is ``(columns, N + 1 + all widths of h)``. x is the input of the first of these segments.
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
    """Return whether ``unit`` is the paper's unit, with folded norms."""
    if type(unit) is not UpdateUnit:
        return False
    convs = [module for module in unit.modules() if isinstance(module, ConvUnit)]
    forms = {("conv", "act"), ("conv",)}
    return all(type(c) is ConvUnit and c.parts in forms and type(c.conv) in PLAIN_CONVS for c in convs)


def _convs(unit: nn.Module) -> list[ConvUnit]:
    """List the conv units of the stacked bottlenecks."""
    assert isinstance(unit, UpdateUnit)
    stack = [unit.get_submodule(f"unit{m}") for m in range(1, unit.stacked + 1)]
    return [c for b in stack if isinstance(b, Bottleneck) for c in (b.layer1, b.layer2, b.layer3)]


def _like(layer: GunnLayer, tensor: Tensor) -> Tensor:
    return tensor.to(next(layer.parameters()).dtype).contiguous()
