"""FractalNet (Larsson et al., ICLR 2017): an expansion rule makes blocks of parallel columns, which are averaged.

§3      f_1(z) = conv(z)
        f_{C+1}(z) = [f_C ∘ f_C](z) ⊕ conv(z)           ⊕ joins; neighbouring joins collapse into one

Unrolled, a block of C columns has 2^(C-1) rows. In column c (1 is the shallowest), a conv ends at every row that is
divisible by 2^(C-c). The columns whose convs end at a row are joined there, with equal weights.
B blocks, each followed by a 2×2 max-pool, give depth B·2^(C-1). "conv" is conv 3×3, batch-norm, ReLU (§3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, one_of, whole, whole_text
from polypath.core.paths import Selectors
from polypath.core.wiring import Wiring
from polypath.families.base import Family, Preset, check_size
from polypath.layers.conv import ConvUnit


@dataclass(frozen=True, kw_only=True)
class FractalNet(Family, name="fractalnet"):
    """FractalNet with B = ``len(filters)`` blocks of C = ``columns`` columns; see the module's equations.

    Args:
        filters: output maps of each block.
        join: ``mean`` (as in the paper), ``sum``, ``max`` or ``concat`` (an alternative in the paper; then there are no
            paths to choose).
        pool: where a block is pooled: in each column ``before`` the block's last join (§3.3, the authors' form), or
            ``after`` this join.
        transitions: 1-based blocks with a 1×1 conv unit before them, in which the number of channels grows. In other
            blocks it grows in the first conv of each column, as in the authors' generator.
        dropout: one rate per block, or a single rate for all.
        order: order of a unit's parts; the authors' generator has ``conv-drop-norm-act``.
        bias, affine: whether convs have biases, and whether batch-norms have scale and shift. The authors' generator
            has biases, but no scale and shift.
        own_norms: whether each column has separate batch-norms for running alone, after the shared convs (the
            generator's tied passes). If so, the network ends in a switch between ``local`` (the fractal) and
            ``column1`` … ``columnC``.
        stem: ``none``, or ``imagenet`` for ResNet-34's first and last layers; then the last block is not pooled.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 512)
    columns: int = 3
    join: str = "mean"
    pool: str = "before"
    transitions: tuple[int, ...] = ()
    dropout: tuple[float, ...] = (0.0,)
    dropout_kind: str = "element"
    order: str = "conv-drop-norm-act"
    bias: bool = False
    affine: bool = True
    own_norms: bool = False
    stem: str = "none"
    init: str = "xavier_fan_in"

    paper = "FractalNet, ICLR 2017"
    starts = ("drawn", "identity")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            filters=each(whole(1)),
            columns=whole(1),
            join=one_of("mean", "sum", "max", "concat"),
            pool=one_of("before", "after"),
            stem=one_of("none", "imagenet"),
        )
        blocks = len(self.filters)
        if not blocks:
            raise ValueError("FractalNet.filters = (): must have a number for at least one block")
        columns = 2 ** min(self.columns, 64) - 1  # a very large exponent would take too long
        check_size(self, blocks * columns * (1 + self.own_norms), blocks, "filters", "columns")
        if unknown := [n for n in self.transitions if not 1 <= n <= blocks]:
            raise ValueError(f"FractalNet.transitions: block {unknown[0]} does not exist; the blocks are 1 to {blocks}")
        if len(self.dropout) not in (1, blocks):
            raise ValueError(
                f"FractalNet.dropout = {self.dropout}: must be one rate, or {blocks} rates, one for each block"
            )

    @property
    def rows(self) -> int:
        """Number of rows of a block, which is the depth of its deepest column: 2^(C-1)."""
        return 2 ** (self.columns - 1)

    @property
    def min_size(self) -> int:
        blocks = len(self.filters)
        # ResNet's stem quarters an image, rounding up, and the last block is not pooled
        return 2**blocks if self.stem == "none" else 2 ** (blocks - 1) * 4 - 3

    def build_graph(self, b: NetBuilder) -> str:
        z, chans = b.input, self.in_chans
        if self.stem == "imagenet":
            z, chans = b.stage(b.add("stem.unit", z, ConvUnit(chans, 64, 7, 2), depth=1)), 64
            z = b.add("stem.pool", z, nn.MaxPool2d(3, 2, padding=1))
            if self.pool == "before" and self._pooled(1):
                b.stage(z)
        ends, out_chans = {"local": self._pass(b, z, chans, None)}, self._out_chans
        if self.own_norms:
            tied = {f"column{c}": self._pass(b, z, chans, c) for c in range(1, self.columns + 1)}
            z = b.join("tied", tied | ends, kind="switch")
        else:
            z = ends["local"]
        z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
        z = b.add("head.flatten", z, nn.Flatten())
        depth = 1 if self.stem == "imagenet" else 0
        return b.add("head.classifier", z, nn.Linear(out_chans, self.num_classes), depth=depth)

    def _pass(self, b: NetBuilder, z: str, chans: int, column: int | None) -> str:
        """Add all blocks: the complete fractals, or only ``column``, with separate batch-norms after the same convs."""
        prefix = "" if column is None else f"tied{column}."
        for block, filters in enumerate(self.filters, 1):
            if block in self.transitions:
                names = ["local", *(f"column{c}" for c in range(1, self.columns + 1))]
                unit = self.conv(block, chans, filters, names, kernel_size=1)
                norm = None if column is None else f"column{column}"
                z = self._unit(b, f"block{block}.transition", z, unit, prefix, norm, depth=0)
                chans = filters
            name = f"block{block}"
            z = self._fractal(b, name, z, block, chans) if column is None else self._column(b, name, z, block, column)
            chans = filters * (self.columns if self.join == "concat" and column is None else 1)
        return z

    def _fractal(self, b: NetBuilder, name: str, z: str, block: int, chans: int) -> str:
        filters, wide = self.filters[block - 1], self.join == "concat"
        at = dict.fromkeys(range(1, self.columns + 1), (z, chans))  # what each column's next conv reads
        joined = z
        for row in range(1, self.rows + 1):
            ended: dict[int, str] = {}
            for c in (c for c in at if row % 2 ** (self.columns - c) == 0):
                source, width = at[c]
                unit = self.conv(block, width, filters, ["local", "column"])
                ended[c] = self._unit(
                    b, f"{name}.column{c}.unit{row // 2 ** (self.columns - c)}", source, unit, "", None
                )
                if row == self.rows and self.pool == "before" and self._pooled(block):
                    ended[c] = b.add(f"{name}.column{c}.pool", ended[c], nn.MaxPool2d(2))
            joined = next(iter(ended.values()))
            if len(ended) > 1:
                joined = b.join(f"{name}.join{row}", {str(c): node for c, node in ended.items()}, self.join)
            at |= {c: (joined, filters * (len(ended) if wide else 1)) for c in ended}
        z = joined
        if self.pool == "after" and self._pooled(block):
            z = b.add(f"{name}.pool", joined, nn.MaxPool2d(2))
        return self._staged(b, block, joined, z)

    def _column(self, b: NetBuilder, name: str, z: str, block: int, column: int) -> str:
        for i in range(1, 2 ** (column - 1) + 1):
            unit = f"{name}.column{column}.unit{i}"
            z = b.unit(f"tied.{unit}", z, depth=1, module=unit, variant="column")
        ended = z
        if self._pooled(block):
            z = b.add(f"tied.{name}.column{column}.pool", z, nn.MaxPool2d(2))
        return self._staged(b, block, ended if self.pool == "after" else z, z)

    def _staged(self, b: NetBuilder, block: int, joined: str, z: str) -> str:
        """Mark one stage per resolution: the block's end, or the pool after the last block; return ``z``."""
        name, last = f"block{block}", block == len(self.filters)
        stage = f"{name}.join{self.rows}" if self.columns > 1 else joined.removeprefix("tied.")
        if self.pool == "after" or last or self._pooled(block + 1):
            b.stage(joined, stage)
        if last and z != joined:
            b.stage(z, f"{name}.pool")
        return z

    def _unit(
        self, b: NetBuilder, name: str, z: str, unit: nn.Module, prefix: str, variant: str | None, depth: int = 1
    ) -> str:
        variant = (variant or "local") if self.own_norms else None
        return b.add(prefix + name, z, unit, depth=depth, at=name, variant=variant)

    def _pooled(self, block: int) -> bool:
        return self.stem == "none" or block < len(self.filters)

    @property
    def _out_chans(self) -> int:
        return self.filters[-1] * (self.columns if self.join == "concat" else 1)

    def conv(self, block: int, in_chans: int, out_chans: int, norms: list[str], kernel_size: int = 3) -> nn.Module:
        """Make the conv unit of the base case f_1; a subclass may return another module."""
        return ConvUnit(
            in_chans,
            out_chans,
            kernel_size,
            order=self.order,
            dropout=self.dropout[block - 1 if len(self.dropout) > 1 else 0],
            dropout_kind=self.dropout_kind,
            bias=self.bias,
            affine=self.affine,
            variants=norms if self.own_norms else (),
        )

    def selectors(self) -> Selectors:
        return {} if self.join == "concat" else {"column": self._chosen_column}

    def path_names(self) -> list[str]:
        return [] if self.join == "concat" else [f"column={c}" for c in range(self.columns, 0, -1)]

    def path_draws(self) -> dict[str, Any]:
        return {"mode": "mixed", "rate": 0.15}  # as in the paper (§4.1)

    def path_sets(self) -> dict[str, list[str]]:
        return {"columns": self.path_names()}

    def _chosen_column(self, wiring: Wiring, value: str) -> dict[str, list[str]]:
        """Choose one column for the whole network, as global drop-path does (§3.1); 1 is the shallowest."""
        column = str(whole_text("column", value, 1, self.columns))
        if "tied" in wiring.joins:
            return {"tied": [f"column{column}"]}
        ends = [f"block{block}.join{self.rows}" for block in range(1, len(self.filters) + 1)]
        for block, end in enumerate(ends, 1):
            left = wiring.joins[end].labels if end in wiring.joins else ()
            if column not in left and f"block{block}.column{column}.unit1" not in wiring.by_name:
                raise ValueError(f"column {column}: this extracted network no longer has this column")
        return {join.name: [column] for join in wiring.joins.values() if column in join.labels}


_NARROW = (16, 32, 64, 128, 128)
PRESETS = {
    "fractalnet20": Preset(FractalNet(), "Table 1, FractalNet of 20 layers", {"params": 38.6, "depth": 20}),
    "fractalnet20_transition": Preset(
        FractalNet(transitions=(1, 2, 3, 4)), "Table 1, the printed size", {"params": 38.6, "depth": 20}
    ),
    "fractalnet40": Preset(FractalNet(columns=4), "Table 1, FractalNet of 40 layers", {"params": 22.9, "depth": 40}),
    "fractalnet34_imagenet": Preset(
        FractalNet(filters=(128, 256, 512, 1024), columns=4, stem="imagenet", num_classes=1000),
        "Table 2, ImageNet",
        {"depth": 34},
        size=224,
    ),
    "fractalnet16_small": Preset(FractalNet(filters=(32, 64, 128, 128))),
} | {
    f"fractalnet_ultra_{5 * 2 ** (c - 1)}": Preset(
        FractalNet(filters=_NARROW, columns=c, num_classes=100), "Table 3, ultra-deep", {"depth": 5 * 2 ** (c - 1)}
    )
    for c in range(1, 7)
}
