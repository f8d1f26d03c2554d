"""Fold the norms inside GUNN's layers into their convs.

A layer then runs as :func:`polypath.layers.gunn_fast.in_place` does, the unit's first 1×1 and the parallel one as one
product of matrices, with nothing but convs and ReLUs left.
"""

from __future__ import annotations

from torch import nn

from polypath.fusion.draft import Draft
from polypath.fusion.folding import folded_conv, norm_as_affine
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn import GunnLayer


def fold_gunn(draft: Draft) -> None:
    """Fold what follows a conv in every conv unit of every :class:`GunnLayer`."""
    for _, layer in draft.units(GunnLayer):
        for unit in layer.modules():
            if type(unit) is ConvUnit:
                fold_in_place(unit)


def fold_in_place(unit: ConvUnit) -> None:
    """Fold the norm that follows the conv of ``unit``, where one does; its other parts stay."""
    if unit.parts[:2] != ("conv", "norm") or type(unit.conv) is not nn.Conv2d or unit.conv.padding_mode != "zeros":
        return
    affine = norm_as_affine(unit.norm)
    if affine is not None:
        unit.conv = folded_conv(unit.conv, *affine)
        unit.parts = ("conv", *unit.parts[2:])
        del unit.norm
