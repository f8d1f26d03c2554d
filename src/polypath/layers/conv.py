"""Conv units: one convolution with norm, activation and dropout, in the order that a paper uses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from polypath.core.checks import check, number, one_of
from polypath.layers.pointwise import PointwiseConv

ORDERS = ("conv-norm-act", "conv-act-norm", "conv-drop-norm-act", "conv-act-norm-drop", "conv-norm-act-drop")
FEW = 8  # with fewer input maps, oneDNN (AVX2, channels-last) writes beyond the weight gradient of a strided 1×1 conv
DROPOUTS = {"element": nn.Dropout, "channel": nn.Dropout2d}


class ConvUnit(nn.Module):
    """A unit of convolution, batch-norm, ReLU and dropout, for maps ``(N, C, H, W)``.

    The padding is "same", and ``stride`` divides the sides of the maps.

    Args:
        order: the parts in order, such as ``conv-norm-act`` (FractalNet §3.3) or ``conv-act-norm`` (CrescendoNet
            Eq. 1). Parts that are not listed are absent: ``conv-norm`` has no activation.
        dropout: probability of the ``drop`` part; 0 omits it.
        dropout_kind: drop single values (``element``) or complete maps (``channel``).
        variants: names of separate norms after the same convolution; a call selects one with
            ``unit(x, variant=...)``.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        order: str = "conv-norm-act",
        dropout: float = 0.0,
        dropout_kind: str = "element",
        bias: bool = False,
        affine: bool = True,
        groups: int = 1,
        variants: Sequence[str] = (),
    ) -> None:
        super().__init__()
        parts = order.split("-")
        if unknown := [part for part in parts if part not in ("conv", "norm", "act", "drop")]:
            raise ValueError(
                f"order = {order!r}: must consist of the parts conv, norm, act, drop, but contains {unknown[0]!r}"
            )
        check("dropout", dropout, number(0, below=1))
        check("dropout_kind", dropout_kind, one_of(*DROPOUTS))
        if kernel_size == groups == 1 and (stride == 1 or in_chans < FEW):
            self.conv: nn.Conv2d = PointwiseConv(in_chans, out_chans, stride, bias=bias)
        else:
            self.conv = nn.Conv2d(
                in_chans, out_chans, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=bias
            )
        if "norm" in parts:
            if variants:
                self.norm = nn.ModuleDict({name: nn.BatchNorm2d(out_chans, affine=affine) for name in variants})
            else:
                self.norm = nn.BatchNorm2d(out_chans, affine=affine)
        if "act" in parts:
            self.act = nn.ReLU(inplace=True)
        if "drop" in parts and dropout > 0.0:
            self.drop = DROPOUTS[dropout_kind](dropout)
        self.parts = tuple(part for part in parts if hasattr(self, part))

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor, variant: str | None = None) -> Tensor: ...

    def forward(self, x: Tensor, variant: str | None = None) -> Tensor:
        for part in self.parts:
            module = getattr(self, part)
            x = module[variant](x) if part == "norm" and variant is not None else module(x)
        return x

    def keep_variants(self, variants: Collection[str]) -> None:
        """Remove the norms of other variants (called by ``extract``)."""
        self.norm = nn.ModuleDict({name: norm for name, norm in self.norm.named_children() if name in variants})
