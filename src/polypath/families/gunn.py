"""GUNN (Qiao et al. 2018): a layer updates its channels one segment after the other, which makes the network deep.

Eq. 4   GUNN(x) = (U_{c_l} ∘ … ∘ U_{c_1})(x)           each update reads the newest values of all channels
Eq. 5   F_c(x) = G_c(x) + x_c                          G_c is a bottleneck update unit (§5.1)

Each resolution has one representation (§5.1): a 1×1 conv makes N channels, one layer of {N, P, K, M} updates each of
them once, and a pool leads to the next resolution. :data:`PRESETS` lists the networks of Tables 1 and 2. SUNN applies
the same units to all segments at once (``order="simultaneous"``). GUNN and SUNN have a single path, so a different
time budget needs a network of a different size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, one_of, whole
from polypath.families.base import Family, Preset, check_size
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn.layer import BACKWARDS, ORDERS, GunnLayer, check_segments


@dataclass(frozen=True, kw_only=True)
class Gunn(Family, name="gunn"):
    """GUNN or SUNN: a stem, layers {N, P, K, M} with transitions between them, a global average pool, a linear layer.

    Args:
        channels: N, the channels of each layer.
        segments: P, the segments of each layer.
        expansion: K, the expansion in update units: one value for all layers or one for each.
        stacked: M, the bottlenecks in an update unit: one value for all layers or one for each.
        parallel: whether a 1×1 conv runs beside each update unit. The paper's parameter counts include it for the CIFAR
            models but not for the ImageNet models.
        residual: whether a unit's result is added to the old values of the segment. If not, the result replaces them
            ("NoRes").
        order: ``gradual`` (GUNN) or ``simultaneous`` (SUNN).
        stem: ``cifar`` is a 3×3 conv; ``imagenet`` a 7×7 conv of stride 2 and a 3×3 max-pool of stride 2.
        stem_width: output maps of the stem's first conv.
        transition: between layers, a 1×1 conv and then an average pool (``conv-pool``, the paper's text), or the
            reverse order (``pool-conv``).
        last_width: output maps of a 1×1 conv after the last layer; 0 omits this conv (ImageNet models).
        backward: implementation of the backward pass, see :class:`~polypath.layers.gunn.layer.GunnLayer`; does not
            affect the parameters.
    """

    channels: tuple[int, ...] = (240, 300, 360)
    segments: tuple[int, ...] = (20, 25, 30)
    expansion: tuple[int, ...] = (2,)
    stacked: tuple[int, ...] = (1,)
    parallel: bool = True
    residual: bool = True
    order: str = "gradual"
    stem: str = "cifar"
    stem_width: int = 64
    transition: str = "conv-pool"
    last_width: int = 360
    backward: str = "algorithm1"

    paper = "GUNN, ICML 2018"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            channels=each(whole(1)),
            expansion=each(whole(1)),
            stacked=each(whole(1)),
            stem_width=whole(1),
            last_width=whole(0),
            order=one_of(*ORDERS),
            stem=one_of("cifar", "imagenet"),
            transition=one_of("conv-pool", "pool-conv"),
            backward=one_of(*BACKWARDS),
        )
        layers = len(self.channels)
        if not layers:
            raise ValueError("Gunn.channels = (): must have a number for at least one layer")
        if len(self.segments) != layers:
            raise ValueError(
                f"Gunn.segments = {self.segments}: must have {layers} entries, one for each entry of channels"
            )
        for name in ("expansion", "stacked"):
            if len(getattr(self, name)) not in (1, layers):
                raise ValueError(
                    f"Gunn.{name} = {getattr(self, name)}: must have one entry, or {layers} entries, one per layer"
                )
        units = sum(p * m for _, p, _, m in self.configurations)
        check_size(self, 3 * units + sum(self.segments) * self.parallel, layers, "channels", "segments", "stacked")
        for i, (n, p) in enumerate(zip(self.channels, self.segments, strict=True), 1):
            check_segments(n, p, f"Gunn, layer {i}: ")

    @property
    def configurations(self) -> list[tuple[int, int, int, int]]:
        """{N, P, K, M} of each layer."""
        layers = len(self.channels)
        k, m = (value * layers if len(value) == 1 else value for value in (self.expansion, self.stacked))
        return list(zip(self.channels, self.segments, k, m, strict=True))

    @property
    def chain_depth(self) -> int:
        """Number of layers on the longest chain through all segments; ``depth`` counts one segment of each layer."""
        steps = [3 * m * (p if self.order == "gradual" else 1) for _, p, _, m in self.configurations]
        return sum(steps) + len(steps) + 1 + bool(self.last_width) + 1

    @property
    def min_size(self) -> int:
        last = 2 ** (len(self.channels) - 1)  # the side that the first layer needs
        return last if self.stem == "cifar" else 4 * (last - 1) + 1

    def build_graph(self, b: NetBuilder) -> str:
        """Add the network's nodes, with names as in Tables 1 and 2: ``conv1``, ``conv2`` (a layer), ``trans1``, …"""
        layers = self.configurations
        z = b.input
        if self.stem == "cifar":
            z = b.add("conv1.unit1", z, ConvUnit(self.in_chans, self.stem_width, 3), depth=1)
        else:
            z = b.stage(b.add("conv1.unit1", z, ConvUnit(self.in_chans, self.stem_width, 7, stride=2), depth=1))
            z = b.add("conv1.pool", z, nn.MaxPool2d(3, stride=2, padding=1))
        z = b.add("conv1.unit2", z, ConvUnit(self.stem_width, layers[0][0], 1), depth=1)
        width = layers[0][0]
        for i, (n, p, k, m) in enumerate(layers, 1):
            if i > 1:
                z = self._transition(b, f"trans{i - 1}", z, width, n)
            z, width = b.add(f"conv{i + 1}", z, self.layer(n, p, k, m), depth=3 * m), n
            if i < len(layers) or not self.last_width:
                b.stage(z)
        if self.last_width:
            name = f"trans{len(layers)}.unit1"
            z, width = b.stage(b.add(name, z, ConvUnit(width, self.last_width, 1), depth=1)), self.last_width
        z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
        z = b.add("head.flatten", z, nn.Flatten())
        return b.add("head.classifier", z, nn.Linear(width, self.num_classes), depth=1)

    def layer(self, n: int, p: int, k: int, m: int) -> nn.Module:
        """Make the layer {N, P, K, M}; a subclass may return a layer with other update units."""
        return GunnLayer(
            n, p, k, m, parallel=self.parallel, residual=self.residual, order=self.order, backward=self.backward
        )

    def _transition(self, b: NetBuilder, name: str, z: str, in_chans: int, out_chans: int) -> str:
        conv = ConvUnit(in_chans, out_chans, 1)
        if self.transition == "conv-pool":
            return b.add(f"{name}.pool", b.add(f"{name}.unit1", z, conv, depth=1), nn.AvgPool2d(2))
        return b.add(f"{name}.unit1", b.add(f"{name}.pool", z, nn.AvgPool2d(2)), conv, depth=1)


_15 = Gunn()
_24 = Gunn(channels=(720, 900, 1080), expansion=(3,), stacked=(2,), last_width=1080)
_18 = Gunn(
    channels=(400, 800, 1600, 2000),
    segments=(10, 20, 40, 50),
    parallel=False,
    stem="imagenet",
    last_width=0,
    num_classes=1000,
)
_WIDE_18 = replace(_18, channels=(1200, 1600, 2000, 2000), segments=(30, 40, 50, 50))
_SMALL = Gunn(channels=(48, 64, 80), segments=(4, 4, 4), stem_width=32, last_width=96)


def _sunn(spec: Gunn) -> Gunn:
    return replace(spec, order="simultaneous")


PRESETS = {
    "gunn15": Preset(_15, "Table 1, §5.2", {"params": 1.585746, "depth": 15}),
    "gunn24": Preset(_24, "Table 3, §5.2", {"params": 29.534106, "depth": 24}),
    "gunn18_imagenet": Preset(_18, "Table 2, §5.3", {"params": 28.909736, "depth": 18}, 224),
    "wide_gunn18_imagenet": Preset(_WIDE_18, "Table 4, §5.3", {"params": 45.624936, "depth": 18}, 224),
    "gunn15_nores": Preset(replace(_15, residual=False), "Table 5", {"params": 1.6, "depth": 15}),
    "sunn15": Preset(_sunn(_15), "Table 5", {"params": 1.6, "depth": 15}),
    "sunn24": Preset(_sunn(_24), "Table 5", {"params": 29.6, "depth": 24}),
    "sunn18_imagenet": Preset(_sunn(_18), "Table 4", {"params": 28.9, "depth": 18}, 224),
    "wide_sunn18_imagenet": Preset(_sunn(_WIDE_18), size=224),  # not in the paper
    "gunn_small": Preset(_SMALL),
    "sunn_small": Preset(_sunn(_SMALL)),
}
