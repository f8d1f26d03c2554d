"""MobileNetV2 (Sandler et al., CVPR 2018), plain and recursive (DRNN §4.2): inverted residual blocks.

block   x' = x + conv 1×1(depthwise 3×3(conv 1×1(x)))      t times as many maps inside, no ReLU after the last conv
        Blocks that change the size have no shortcut. ReLU means ReLU6.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, whole
from polypath.families.base import Preset
from polypath.families.recursive import Block, Group, Recursive
from polypath.layers.lvbn import LoopUnit


@dataclass(frozen=True, kw_only=True)
class RecursiveMobileNetV2(Recursive, name="dr_mobilenetv2"):
    """MobileNetV2, plain or recursive. In a group with ``loops`` above 1, all blocks but the first recur.

    Args:
        blocks: n of each group, the number of its blocks (Table 2 of the MobileNetV2 paper).
        widths: c of each group, its output maps.
        expansions: t of each group, the factor by which its blocks expand the number of their input maps.
        strides: s of each group, the stride of its first block.
        stem_width: output maps of the first conv, which is 3×3 with stride 2.
        last_width: output maps of the 1×1 conv before the head.
    """

    loops: tuple[int, ...] = (1, 1, 2, 3, 2, 2, 1)
    gate_hidden: int = 0
    blocks: tuple[int, ...] = (1, 2, 2, 2, 2, 2, 1)
    widths: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    stem_width: int = 32
    last_width: int = 1280

    def __post_init__(self) -> None:
        check_fields(
            self,
            blocks=each(whole(1)),
            widths=each(whole(1)),
            expansions=each(whole(1)),
            strides=each(whole(1)),
            stem_width=whole(1),
            last_width=whole(1),
        )
        for name in ("widths", "expansions", "strides"):
            if len(value := getattr(self, name)) != len(self.blocks):
                told = f"must have {len(self.blocks)} entries, one for each entry of blocks"
                raise ValueError(f"{type(self).__name__}.{name} = {value}: {told}")
        super().__post_init__()

    @property
    def group_blocks(self) -> tuple[int, ...]:
        return self.blocks

    def groups(self) -> list[Group]:
        return [Group(*of) for of in zip(self.blocks, self.widths, self.strides, strict=True)]

    @property
    def stem_chans(self) -> int:
        return self.stem_width

    def skippable(self, block: Block) -> bool:
        return not block.resized

    def build_graph(self, b: NetBuilder) -> str:
        stem = LoopUnit(self.in_chans, self.stem_width, 3, 2, act="relu6")
        z, places = b.add("stem.unit", b.input, stem, depth=1), self.places()
        for block in places:
            if block.stride > 1:
                b.stage(z)
            shortcut = None if block.resized else z
            z = self.recur(b, z, block, self.units(block), shortcut, relu=False)
        last = LoopUnit(places[-1].out_chans, self.last_width, 1, act="relu6")
        z = b.stage(b.add("last.unit", z, last, depth=1))
        z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
        z = b.add("head.flatten", z, nn.Flatten())
        return b.add("head.classifier", z, nn.Linear(self.last_width, self.num_classes), depth=1)

    def units(self, block: Block) -> list[LoopUnit]:
        """Make the units of a block: expansion (none if t = 1), depthwise conv, linear bottleneck."""
        unit, t = self.unit(block), self.expansions[block.group - 1]
        inside = block.in_chans * t
        expand = [unit(block.in_chans, inside, 1, act="relu6")] if t > 1 else []
        depthwise = unit(inside, inside, 3, block.stride, groups=inside, act="relu6")
        return [*expand, depthwise, unit(inside, block.out_chans, 1, order="conv-norm")]


_PLAIN = RecursiveMobileNetV2(
    blocks=(1, 2, 3, 4, 3, 3, 1), loops=(1,) * 7, norm="shared", gates="none", num_classes=1000
)

PRESETS = {
    "dr_mobilenetv2": Preset(
        RecursiveMobileNetV2(num_classes=1000), "Table 2", {"params": 2.96, "mean_macs": 0.275}, size=224
    ),
    "mobilenetv2_base": Preset(_PLAIN, "Table 2, MobileNetV2", {"params": 3.40, "macs": 0.300}, size=224),
}
