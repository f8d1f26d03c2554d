"""CrescendoNet (Zhang et al. 2017): blocks of parallel branches of linearly growing depth, whose outputs are averaged.

Eq. 1   f_1(z) = batchnorm(activation(conv(z)))
Eq. 2   f_n(z) = f_1^{nI}(z)                           branch n has n·I units
Eq. 3   H_S(z) = f_1(z) ⊕ f_2(z) ⊕ … ⊕ f_S(z)          ⊕ is the element-wise mean

Blocks are stacked with 2×2 max-pools between them. After them come two linear layers, of width 384 and 192, and the
classifier (§II-A).
The paper's parameter counts imply one more max-pool, after the last block; ``final_map`` is its output size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, whole, whole_text
from polypath.core.later import later
from polypath.core.paths import Selectors
from polypath.core.wiring import Wiring
from polypath.families.base import Family, Preset, check_size
from polypath.layers.conv import ConvUnit
from polypath.layers.pool import AdaptiveMaxPool


@dataclass(frozen=True, kw_only=True)
class CrescendoNet(Family, name="crescendonet"):
    """CrescendoNet with S = ``scale`` branches per block. Branch n has n·I units (I = ``interval``).

    See the module's equations.

    Args:
        widths: output maps of each block.
        growing: Eq. 4, "-W" in the paper: the widths in a branch grow from the block's input width to its output
            width. In the first block, whose input is the image, all widths are equal.
        final_map: side of the map that the linear layers read, after an adaptive max-pool. With 8 there is no pool
            after the last block for 32×32 images, as in the paper's text.
        hidden: widths of the linear layers before the classifier.
        dropout: dropout rate at the output of each unit (the paper gives no rate).
        order: order of a unit's parts; the paper's order is conv, ReLU, batch-norm.
        bias: whether convs have a bias. The norm's shift does not replace it, because a ReLU is between conv and norm.
            The paper does not mention a bias.
    """

    widths: tuple[int, ...] = (128, 128, 128)
    scale: int = 4
    interval: int = 1
    growing: bool = False
    final_map: int = 2
    hidden: tuple[int, ...] = (384, 192)
    dropout: float = 0.0
    dropout_kind: str = "element"
    order: str = "conv-act-norm-drop"
    init: str = "truncated_normal"
    bias: bool = later(False)

    paper = "CrescendoNet, 2017"
    starts = ("drawn", "identity")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self, widths=each(whole(1)), hidden=each(whole(1)), scale=whole(1), interval=whole(1), final_map=whole(1)
        )
        if not self.widths:
            raise ValueError("CrescendoNet.widths = (): must have a width for at least one block")
        blocks, branches = len(self.widths), self.scale * (self.scale + 1) // 2
        layers = blocks * branches * self.interval + len(self.hidden)
        check_size(self, layers, blocks, "widths", "scale", "interval", "hidden")

    @property
    def min_size(self) -> int:
        return 2 ** (len(self.widths) - 1)

    def branch_widths(self, block: int, branch: int) -> list[int]:
        """Compute the output maps of each unit of a branch, by Eq. 4 if ``growing``. ``block`` and ``branch`` are
        1-based."""
        n_out, n = self.widths[block - 1], branch * self.interval
        if not self.growing or block == 1:
            return [n_out] * n
        n_in = self.widths[block - 2]
        return [int(n_in + i * (n_out - n_in) / n + 0.5) for i in range(1, n + 1)]

    def build_graph(self, b: NetBuilder) -> str:
        z, chans = b.input, self.in_chans
        for block in range(1, len(self.widths) + 1):
            branches: dict[str, str] = {}
            for branch in range(1, self.scale + 1):
                outs = self.branch_widths(block, branch)
                units = [self.unit(n_in, n_out) for n_in, n_out in zip([chans, *outs], outs, strict=False)]
                branches[str(branch)] = b.chain(f"block{block}.branch{branch}", z, units)
            z, chans = b.stage(b.join(f"block{block}.join", branches)), self.widths[block - 1]
            if block < len(self.widths):
                z = b.add(f"block{block}.pool", z, nn.MaxPool2d(2))
        z = b.add("head.pool", z, AdaptiveMaxPool(self.final_map))
        z, width = b.add("head.flatten", z, nn.Flatten()), chans * self.final_map**2
        for i, out in enumerate(self.hidden, 1):
            z = b.add(f"head.hidden{i}", z, nn.Sequential(nn.Linear(width, out), nn.ReLU(inplace=True)))
            width = out
        return b.add("head.classifier", z, nn.Linear(width, self.num_classes))

    def unit(self, in_chans: int, out_chans: int) -> nn.Module:
        """Make the unit f_1 of Eq. 1; a subclass may return another module."""
        return ConvUnit(
            in_chans,
            out_chans,
            order=self.order,
            dropout=self.dropout,
            dropout_kind=self.dropout_kind,
            bias=self.bias,
        )

    def selectors(self) -> Selectors:
        return {"branches": self._branches}

    def path_names(self) -> list[str]:
        if (
            self.scale != 4
        ):  # the paper's table has all sets for scale 4; for other scales, list each branch and the first n branches
            stairs = [range(1, n + 1) for n in range(self.scale - 1, 1, -1)]
            return [_text(s) for s in stairs] + [_text([n]) for n in range(self.scale, 0, -1)]
        return [f"branches={text}" for text in TABLE_II]

    def path_sets(self) -> dict[str, list[str]]:
        return {"branches": self.path_names()}

    def _branches(self, wiring: Wiring, value: str) -> dict[str, list[str]]:
        """Read one list for all blocks, ``1,3`` (P = {1, 3} in §III-B), or one list per block, ``1,3/2/1,2,3,4``."""
        per_block, blocks = value.split("/"), len(self.widths)
        if len(per_block) == 1:
            per_block *= blocks
        if len(per_block) != blocks:
            raise ValueError(
                f"branches {value!r}: give one list, or {blocks} lists separated by '/', one for each block"
            )
        choice: dict[str, list[str]] = {}
        for block, text in enumerate(per_block, 1):
            wanted = [str(whole_text("branch", n, 1, self.scale)) for n in text.split(",")]
            name = f"block{block}.join"
            if name in wiring.joins:
                choice[name] = wanted
            elif [f"block{block}.branch{n}.unit1" in wiring.by_name for n in wanted] != [True]:
                raise ValueError(f"branches {value!r}: block {block} of this extracted network has only another branch")
        return choice


TABLE_II = ("2,3,4", "1,2,4", "1,2,3", "3,4", "2,4", "2,3", "1,4", "1,2", "4", "3", "2", "1")


def _text(branches: Iterable[int]) -> str:
    return "branches=" + ",".join(map(str, branches))


_WIDE = (128, 256, 512)
PRESETS = {
    "crescendonet_128": Preset(CrescendoNet(), "Table I, (128, 128, 128)", {"params": 4.1, "depth": 15}, linear=3),
    "crescendonet_512w": Preset(
        CrescendoNet(widths=_WIDE, growing=True), "Table I, (128, 256, 512)-W", {"params": 18.3, "depth": 15}, linear=3
    ),
    "crescendonet_512": Preset(
        CrescendoNet(widths=_WIDE, final_map=4), "Table I, (128, 256, 512)", {"params": 27.7, "depth": 15}, linear=3
    ),
    "crescendonet_32": Preset(CrescendoNet(widths=(32, 32, 32)), linear=3),
}
