"""Dynamic recursive nets (Guo et al., CVPR 2019): residual blocks that run several times, as their gates decide.

block   x_k = relu(x_{k-1} + F(x_{k-1}; W, θ_k))      k = 1..l; loops share the convs W, each has its norms θ_k (LVBN)
gate    loop k runs while g_1, …, g_k are open        g_k = G(x_{k-1}); one gate per block, run before every loop

A group has one block that changes the size and does not recur; its other blocks recur up to l times. The loops of a
block are nodes ``group3.block2.loop1.*``, ``loop2.*``, …, which run the modules ``group3.block2.*``. The block ends in
the switch ``group3.block2.loops``, with the operands 0 (the block is skipped) to l. ConvNet-AIG is the case l = 1 with
gates on all blocks.

This module has the base class and the networks built from ResNets. The networks built from MobileNetV2 are in
:mod:`polypath.families.inverted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, number, one_of, whole
from polypath.core.network import PathNet
from polypath.core.paths import Selectors
from polypath.core.recording import exporting
from polypath.core.wiring import Gate, Wiring
from polypath.families.base import Family, Preset, check_size, seeded
from polypath.families.resnet import begin, end, still_there
from polypath.layers.conv import ConvUnit
from polypath.layers.gates import GateUnit
from polypath.layers.lvbn import LoopUnit

NORMS = {"i-lvbn": "passed", "i-lvbn-updates": "updates", "lvbn": "all", "shared": "all"}
GATES = ("none", "recursive", "all")
MakeUnit = Callable[..., LoopUnit]


class Group(NamedTuple):
    """A group of consecutive blocks. The first block changes the size and never recurs."""

    blocks: int
    out_chans: int
    stride: int


class Block(NamedTuple):
    """A block's position and how it changes the size."""

    group: int
    name: str
    in_chans: int
    out_chans: int
    stride: int
    loops: int

    @property
    def resized(self) -> bool:
        return self.stride != 1 or self.in_chans != self.out_chans


@dataclass(frozen=True, kw_only=True)
class Recursive(Family):
    """The base class of recursive nets.

    Args:
        loops: l of each group, the largest number of loops of each block after the first. 1 means no recursion.
        norm: which batch-norms the loops have. ``i-lvbn``: each loop has its own batch-norms, with statistics of only
            the samples that pass the gates. ``i-lvbn-updates``: the same, but only the running statistics are
            restricted to these samples. ``lvbn``: each loop has its own batch-norms, with statistics of all samples.
            ``shared``: all loops have the same batch-norms.
        gates: which blocks have gates: the ``recursive`` ones, ``all`` that can be skipped, or ``none``.
        gate_hidden: d, the size of a gate's hidden layer; 0 omits this layer.
        gate_open: the gates' initial execution rate.
        first_loop: ``gated``, or ``free`` (the first loop always runs).
    """

    loops: tuple[int, ...] = (1, 3, 3)
    norm: str = "i-lvbn"
    gates: str = "recursive"
    gate_hidden: int = 16
    gate_open: float = 0.85
    first_loop: str = "gated"

    paper = "DRNN, CVPR 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            norm=one_of(*NORMS),
            gates=one_of(*GATES),
            first_loop=one_of("gated", "free"),
            loops=each(whole(1)),
            gate_hidden=whole(0),
            gate_open=number(above=0, below=1),
        )
        name, blocks = type(self).__name__, self.group_blocks
        runs = sum(n * max(1, most) for n, most in zip(blocks, self.loops, strict=False))
        check_size(self, 3 * max(runs, sum(blocks)), len(blocks), "blocks", "loops")
        groups = self.groups()
        if len(self.loops) != len(groups):
            raise ValueError(
                f"{name}.loops = {self.loops}: must have {len(groups)} entries, one for each group of blocks"
            )
        recur = {block.group for block in self.places() if block.loops > 1}
        for group, most in enumerate(self.loops, 1):
            if most > 1 and group not in recur:
                raise ValueError(
                    f"{name}.loops = {self.loops}: group {group} has no block that can recur, so its loops must be 1"
                )
        if self.gates == "recursive" and not recur:
            raise ValueError(
                f"{name}.gates = 'recursive': requires a block that recurs; set loops above 1, or gates 'all' or 'none'"
            )

    @property
    def group_blocks(self) -> tuple[int, ...]:
        """Number of blocks of each group."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """List the groups of blocks, in order."""
        raise NotImplementedError

    @property
    def stem_chans(self) -> int:
        """Number of maps that the first block reads."""
        raise NotImplementedError

    def places(self) -> list[Block]:
        """List all blocks, in order."""
        found: list[Block] = []
        chans = self.stem_chans
        for place, (group, loops) in enumerate(zip(self.groups(), self.loops, strict=False), 1):
            for i in range(1, group.blocks + 1):
                stride, times = (group.stride, 1) if i == 1 else (1, loops)
                found.append(Block(place, f"group{place}.block{i}", chans, group.out_chans, stride, times))
                chans = group.out_chans
        return found

    def skippable(self, block: Block) -> bool:
        """Return whether the block has a shortcut, so that it can be skipped."""
        raise NotImplementedError

    def switched(self, block: Block) -> bool:
        """Return whether the block ends in a switch: it recurs, or a gate decides whether it runs."""
        return block.loops > 1 or bool(self._opens(block))

    def _opens(self, block: Block) -> list[int]:
        """List the loops of the block that have a gate before them."""
        wanted = self.gates == "all" or (self.gates == "recursive" and block.loops > 1)
        first = 2 if self.first_loop == "free" else 1
        return list(range(first, block.loops + 1)) if wanted and self.skippable(block) else []

    def build(self, seed: int | None = None) -> PathNet:
        with seeded(seed):
            net = super().build()
            for module in net.modules():
                if isinstance(module, GateUnit):
                    module.reset_last()
        return net

    # --- building the graph ------------------------------------------------------------------------------

    def recur(
        self, b: NetBuilder, z: str, block: Block, units: Sequence[LoopUnit], shortcut: str | None, relu: bool
    ) -> str:
        """Add one block: its units run up to ``block.loops`` times, and each loop's result is added to the shortcut.

        ``shortcut`` is None if the block has none. Return the block's output node.
        """
        name, switched, opens = block.name, self.switched(block), self._opens(block)
        relu_at = f"{name}.relu"
        skipped = shortcut
        if switched and relu and shortcut is not None and shortcut != z:
            skipped = b.add(f"{name}.skipped", shortcut, nn.ReLU(), at=relu_at)
        ends = [skipped or z]
        for k in range(1, block.loops + 1):
            prefix, y = (f"{name}.loop{k}" if switched else name), z if k == 1 else ends[-1]
            for i, unit in enumerate(units, 1):
                variant = f"loop{k}" if self._variants(block) else None
                y = b.add(f"{prefix}.unit{i}", y, unit, depth=1, at=f"{name}.unit{i}", variant=variant)
            if shortcut is not None:
                y = b.join(f"{prefix}.join", {"L": shortcut if k == 1 else ends[-1], "R": y}, "sum")
            if relu:
                y = b.add(f"{prefix}.relu", y, nn.ReLU(), at=relu_at)
            ends.append(y)
        if not switched:
            return ends[-1]
        if opens:
            statistics = NORMS[self.norm]
            gate = GateUnit(block.in_chans, self.gate_hidden, open_share=self.gate_open, statistics=statistics)
            b.modules[f"{name}.gate"] = gate
        gates = tuple(Gate(f"{name}.gate", z if k == 1 else ends[k - 1], str(k)) for k in opens)
        return b.join(f"{name}.loops", {str(k): y for k, y in enumerate(ends)}, "switch", gates=gates)

    def _variants(self, block: Block) -> list[str]:
        """List the names of the loops' norms, if each loop has its own."""
        own = block.loops > 1 and self.norm != "shared"
        return [f"loop{k}" for k in range(1, block.loops + 1)] if own else []

    def unit(self, block: Block) -> MakeUnit:
        """Return a function that makes the units of a block, with the norms that the block needs."""

        def make(in_chans: int, out_chans: int, kernel_size: int, stride: int = 1, **options: Any) -> LoopUnit:
            norms: dict[str, Any] = {"statistics": NORMS[self.norm], "variants": self._variants(block)}
            return LoopUnit(in_chans, out_chans, kernel_size, stride, **norms, **options)

        return make

    # --- choosing ----------------------------------------------------------------------------------------

    def selectors(self) -> Selectors:
        return {"loops": self._loops} if any(map(self.switched, self.places())) else {}

    def path_names(self) -> list[str]:
        most = self._most()
        if not most:
            return []
        return ["loops=max"] + [f"loops={k}" for k in range(min(most.values()), -1, -1)]

    def path_sets(self) -> dict[str, list[str]]:
        return {"loops": self.path_names()}

    def _most(self) -> dict[int, int]:
        """Return l of each group that ``loops=`` sets: groups with recursive blocks or, without any, with gates."""
        blocks = [block for block in self.places() if self.switched(block)]
        recursive = [block for block in blocks if block.loops > 1] or blocks
        return {block.group: block.loops for block in recursive}

    def _loops(self, wiring: Wiring, value: str) -> dict[str, list[str]]:
        """Read one entry for all groups, ``2``, or one for each recursive group, ``3/2``.

        An entry is a number of loops, ``max`` or ``dynamic``. With a number, blocks that have gates but do not recur
        always run. With ``dynamic``, their gates decide.
        """
        most = self._most()
        parts = [part.strip() for part in value.split("/")]
        if len(parts) == 1:
            parts *= len(most)
        if len(parts) != len(most):
            groups = ", ".join(map(str, most))
            raise ValueError(
                f"loops {value!r}: give one entry, or {len(most)} entries separated by '/', for groups {groups}"
            )
        wanted = dict(zip(most, parts, strict=True))
        for group, part in wanted.items():
            if part == "dynamic":
                self._gated(wiring, group, value)
            elif part != "max":
                high = most[group] if "/" in value else min(most.values())
                if not part.isdecimal() or int(part) > high:
                    raise ValueError(self._told(value, part, group, high))
        all_dynamic = set(parts) == {"dynamic"}
        choice: dict[str, list[str]] = {}
        for block in filter(self.switched, self.places()):
            part = wanted.get(block.group, "dynamic" if all_dynamic else "max")
            if part == "dynamic":
                continue
            once = block.loops == 1 < most.get(block.group, 2)
            choice[f"{block.name}.loops"] = [str(block.loops) if once or part == "max" else str(int(part))]
        return still_there(self, wiring, f"loops={value}", choice)

    def _told(self, value: str, part: str, group: int, high: int) -> str:
        most = self._most()
        legal = ", ".join([*map(str, range(high + 1)), "max", *(["dynamic"] if self.gates != "none" else [])])
        each = (
            f"; or give one for each of groups {', '.join(map(str, most))}, up to {'/'.join(map(str, most.values()))}"
        )
        where = f" for group {group}" if "/" in value else ""
        return f"loops {part!r}{where}: must be one of {legal}{each if len(most) > 1 else ''}"

    def _gated(self, wiring: Wiring, group: int, value: str) -> None:
        """Raise ``ValueError`` unless every recursive block of a group has gates."""
        for block in self.places():
            if block.group == group and self.switched(block):
                join = wiring.joins.get(f"{block.name}.loops")
                if join is None or not join.gates:
                    raise ValueError(
                        f"loops {value!r}: block {block.name} has no gates; choose a number of loops, or max"
                    )


@dataclass(frozen=True, kw_only=True)
class RecursiveResNet(Recursive, name="dr_resnet"):
    """A ResNet whose later groups have recursive blocks.

    Args:
        blocks: number of blocks of each group, including the one that changes the size.
        width: maps of the first group; each next group has twice as many.
        block: ``basic`` (two convs 3×3) or ``bottleneck`` (convs 1×1, 3×3, 1×1; the first two have a quarter of the
            block's output maps).
        stem: ``cifar`` (conv 3×3) or ``imagenet`` (conv 7×7 with stride 2, then 3×3 max-pool with stride 2).
        stride_at: the conv of a bottleneck that has the stride: the first ``1x1`` (v1) or the ``3x3``.
        shortcut: the shortcut where the size changes: ``projection`` (1×1 conv, batch-norm) or ``pad`` (subsampling,
            with maps of zeros added).
    """

    blocks: tuple[int, ...] = (3, 3, 3)
    width: int = 16
    block: str = "basic"
    stem: str = "cifar"
    stride_at: str = "1x1"
    shortcut: str = "projection"

    def __post_init__(self) -> None:
        check_fields(
            self,
            block=one_of("basic", "bottleneck"),
            stem=one_of("cifar", "imagenet"),
            stride_at=one_of("1x1", "3x3"),
            shortcut=one_of("projection", "pad"),
            width=whole(1),
            blocks=each(whole(1)),
        )
        super().__post_init__()

    @property
    def group_blocks(self) -> tuple[int, ...]:
        return self.blocks

    def groups(self) -> list[Group]:
        width = self.width * (1 if self.block == "basic" else 4)
        return [Group(blocks, width * 2**i, 2 if i else 1) for i, blocks in enumerate(self.blocks)]

    @property
    def stem_chans(self) -> int:
        return self.width

    def skippable(self, block: Block) -> bool:
        return True

    def build_graph(self, b: NetBuilder) -> str:
        z, places = begin(b, self.in_chans, self.width, self.stem), self.places()
        for block in places:
            if block.stride > 1:
                b.stage(z)
            z = self.recur(b, z, block, self.units(block), self._shortcut(b, z, block), relu=True)
        return end(b, b.stage(z), places[-1].out_chans, self.num_classes)

    def units(self, block: Block) -> list[LoopUnit]:
        """Make the layers F of a block. The ReLU of the last layer comes after the sum, so it is not included."""
        unit, out = self.unit(block), block.out_chans
        if self.block == "basic":
            return [unit(block.in_chans, out, 3, block.stride), unit(out, out, 3, order="conv-norm")]
        mid, first = out // 4, block.stride if self.stride_at == "1x1" else 1
        return [
            unit(block.in_chans, mid, 1, first),
            unit(mid, mid, 3, block.stride // first),
            unit(mid, out, 1, order="conv-norm"),
        ]

    def _shortcut(self, b: NetBuilder, z: str, block: Block) -> str:
        if not block.resized:
            return z
        if self.shortcut == "pad":
            return b.add(f"{block.name}.shortcut", z, PadShortcut(block.out_chans - block.in_chans, block.stride))
        return b.add(
            f"{block.name}.shortcut", z, ConvUnit(block.in_chans, block.out_chans, 1, block.stride, order="conv-norm")
        )


class PadShortcut(nn.Module):
    """A shortcut that takes every ``stride``-th pixel and adds ``extra`` maps of zeros (He et al. 2016, option A)."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        # in an exported graph, one operator that selects the same pixels is faster than two slices
        kept = F.avg_pool2d(x, 1, self.stride) if exporting() else x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}, stride={self.stride}"


def recursive_blocks(n: int, loops: int) -> int:
    """Compute how many blocks with l loops replace n blocks of the base net: floor((n-1) / l) + 1 (§4.1)."""
    return (n - 1) // loops + 1


def _cifar(first: int, others: int, loops: int, params: float, mean_macs: float) -> Preset:
    spec = RecursiveResNet(blocks=(first, others, others), loops=(1, loops, loops), shortcut="pad")
    return Preset(spec, "Table 1", {"params": params, "mean_macs": mean_macs})


def _imagenet(
    blocks: tuple[int, ...], loops: tuple[int, ...], table: str, printed: dict[str, float], **fields: Any
) -> Preset:
    spec = RecursiveResNet(
        blocks=blocks, loops=loops, width=64, block="bottleneck", stem="imagenet", num_classes=1000, **fields
    )
    return Preset(spec, table, printed, size=224)


_53 = (3, 4, 8, 2), (1, 1, 3, 2)
_AIG = {"norm": "shared", "gates": "all"}  # one norm per block, with statistics of all samples

PRESETS = {
    "dr_resnet74_cifar": _cifar(18, 9, 2, 0.92, 0.220),
    "dr_resnet66_cifar": _cifar(18, 7, 3, 0.73, 0.214),  # the formula gives 6 blocks, but printed depth and size need 7
    "dr_resnet58_cifar": _cifar(18, 5, 4, 0.55, 0.197),
    "dr_resnet54_cifar": _cifar(18, 4, 5, 0.45, 0.192),
    "dr_resnet40_cifar": _cifar(9, 5, 2, 0.50, 0.110),
    "dr_resnet32_cifar": _cifar(9, 3, 4, 0.31, 0.099),
    "dr_resnet16_cifar": _cifar(3, 2, 2, 0.18, 0.032),
    "dr_resnet65_imagenet": _imagenet((3, 4, 12, 2), (1, 1, 2, 2), "Table 2", {"params": 28.12, "mean_macs": 5.49}),
    "dr_resnet53_imagenet": _imagenet(*_53, "Tables 2, 3", {"params": 23.60, "mean_macs": 4.92}),
    "dr_resnet47_imagenet": _imagenet((3, 4, 6, 2), (1, 1, 4, 2), "Table 2", {"params": 21.34, "mean_macs": 4.56}),
    "dr_resnet44_imagenet": _imagenet((3, 4, 5, 2), (1, 1, 5, 2), "Table 2", {"params": 20.21, "mean_macs": 4.25}),
    "dr_resnet35_imagenet": _imagenet((3, 3, 3, 2), (1, 2, 2, 2), "Table 2", {"params": 17.61, "mean_macs": 3.12}),
    "r_resnet53_imagenet": _imagenet(
        *_53, "Table 3, naive", {"params": 23.39, "macs": 7.6}, gates="none", norm="shared"
    ),
    "r_resnet53_lvbn_imagenet": _imagenet(
        *_53, "Table 3, L", {"params": 23.39, "macs": 7.6}, gates="none", norm="lvbn"
    ),
    "dr_resnet53_lvbn_imagenet": _imagenet(*_53, "Table 3, L, G", {"params": 23.60, "mean_macs": 4.92}, norm="lvbn"),
    "aig_resnet110_cifar": Preset(
        RecursiveResNet(blocks=(18, 18, 18), loops=(1, 1, 1), shortcut="pad", norm="shared", gates="all"),
        "Table 1, AIG-ResNet 110",
        {"params": 1.78, "mean_macs": 0.215},
    ),
    "aig_resnet50_imagenet": _imagenet(
        (3, 4, 6, 3), (1,) * 4, "Table 2, AIG-ResNet 50", {"params": 26.56, "mean_macs": 3.15}, **_AIG
    ),
    "aig_resnet101_imagenet": _imagenet(
        (3, 4, 23, 3), (1,) * 4, "Table 2, AIG-ResNet 101", {"params": 46.23, "mean_macs": 5.11}, **_AIG
    ),
    "dr_resnet_small": Preset(RecursiveResNet(blocks=(2, 3, 3), loops=(1, 2, 3), shortcut="pad")),
}
