"""ResNet (He et al., CVPR 2016) as a deeply-fused net (Zhao et al. 2016, §3), and code shared with similar families.

§3      x_k = H_k(B_k^L(x_{k-1}), B_k^R(x_{k-1}))       two base networks, deep (R) and shallow (L), fused K times
ResNet  x_k = relu(S_k(x_{k-1}) + B_k(x_{k-1}))         B is two convs 3×3 (basic), or 1×1, 3×3, 1×1 (bottleneck)

S is the identity. Where the size changes, it is a 1×1 conv with batch-norm instead (the *projection*). A layer is conv,
batch-norm, ReLU; sums come between the norm and the ReLU (§6.2). CIFAR networks have three groups of units with w, 2w
and 4w maps, w = 16; ImageNet networks have four groups. The depth counts the first conv, the convs of the branches and
the classifier, but not projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, number, one_of, whole, whole_text
from polypath.core.later import later
from polypath.core.network import PathNet
from polypath.core.paths import Selectors
from polypath.core.wiring import Wiring
from polypath.families.base import Family, Preset, check_size
from polypath.layers.conv import ConvUnit

Choices = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Normed(Family):
    """A family with settings of batch-norm. The DFN paper does not state them, but the paper's released code does.

    Args:
        norm_eps: epsilon; the released code has 2e-5.
        norm_momentum: weight of a batch in the running statistics, as in torch. MXNet's convention is the opposite:
            revisions of the released code have 0.9 and 0.99, which are 0.1 and 0.01 here.
    """

    norm_eps: float = later(1e-5)
    norm_momentum: float = later(0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, norm_eps=number(above=0), norm_momentum=number(above=0, high=1))

    def initialise(self, net: PathNet) -> None:
        super().initialise(net)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = self.norm_eps, self.norm_momentum


class Place(NamedTuple):
    """The place of a fusion: its group, the blocks of its branches, channels in and out, stride, survival rate."""

    group: int
    blocks: tuple[str, ...]
    in_chans: int
    out_chans: int
    stride: int
    survival: float

    @property
    def name(self) -> str:
        """The name of the fusion's last block. The names of the fusion's joins begin with this name."""
        return self.blocks[-1]

    @property
    def resized(self) -> bool:
        return self.stride != 1 or self.in_chans != self.out_chans


@dataclass(frozen=True, kw_only=True)
class Residual(Normed):
    """The base class of ResNet, DFN-IL and DFN-MR: groups of blocks, each fused with a shortcut.

    Args:
        depth: number of layers from the image to the logits; 0 if ``blocks`` is given. The blocks of this depth are
            divided over three groups: each group in order gets floor(blocks left / groups left).
        blocks: number of blocks of each group, instead of a depth.
        width: maps of the first group; each next group has twice as many.
        block: ``basic`` (two convs 3×3) or ``bottleneck`` (convs 1×1, 3×3, 1×1; the first two have a quarter of the
            block's output maps).
        stem: ``cifar`` (conv 3×3) or ``imagenet`` (conv 7×7 with stride 2, then 3×3 max-pool with stride 2).
        stride_at: the conv of a bottleneck that has the stride: ``3x3`` (v1.5, as in timm) or the first ``1x1`` (v1).
        span: number of consecutive blocks that one fusion spans (fewer at a group's end).
        shallow: the shortcut where the size does not change: ``identity`` or a separate ``block``.
        join: the combinator: ``sum`` or ``max``.
        survival: p_L of stochastic depth, the probability that the last fusion keeps its branches.
        survival_rule: ``linear``, p_l = 1 - l/L·(1 - p_L) (Huang et al. 2016, Eq. 4), or ``uniform``, p_L everywhere.
    """

    depth: int = 0
    blocks: tuple[int, ...] = ()
    width: int = 16
    block: str = "basic"
    stem: str = "cifar"
    stride_at: str = "3x3"
    span: int = 1
    shallow: str = "identity"
    join: str = "sum"
    survival: float = 1.0
    survival_rule: str = "linear"
    init: str = "he_fan_in"

    paper = "ResNet, CVPR 2016; Deep Fusion, 2016"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            block=one_of("basic", "bottleneck"),
            stem=one_of("cifar", "imagenet"),
            stride_at=one_of("3x3", "1x1"),
            shallow=one_of("identity", "block"),
            join=one_of("sum", "max"),
            depth=whole(0),
            width=whole(1),
            span=whole(1),
            blocks=each(whole(1)),
        )
        check_survival(self)
        if bool(self.depth) == bool(self.blocks):
            given = f"{type(self).__name__}.depth = {self.depth}, blocks = {self.blocks}"
            raise ValueError(f"{given}: give exactly one of them; the other must be 0 or ()")
        if not self.blocks:
            whole_units(self, self.layers, least=3)
        self.check_layers(2 if self.shallow == "block" else 1, "shallow")

    @property
    def layers(self) -> int:
        """Number of layers of a block: 2, or 3 in a bottleneck."""
        return 2 if self.block == "basic" else 3

    @property
    def group_blocks(self) -> tuple[int, ...]:
        """Number of blocks of each group."""
        return self.blocks or share(whole_units(self, self.layers, least=3), 3)

    def check_layers(self, times: int, name: str) -> None:
        """Raise ``ValueError`` if the network is too large. The field ``name`` multiplies its layers by ``times``."""
        blocks = self.group_blocks
        check_size(self, times * self.layers * sum(blocks), len(blocks), "depth", "blocks", name)

    def places(self) -> list[Place]:
        """List all fusions, in order."""
        groups = list(enumerate(self.group_blocks, 1))
        spans = [
            (group, [f"group{group}.block{i}" for i in range(first, min(first + self.span, blocks + 1))])
            for group, blocks in groups
            for first in range(1, blocks + 1, self.span)
        ]
        found: list[Place] = []
        chans = self.width
        for index, (group, names) in enumerate(spans, 1):
            out = self.width * 2 ** (group - 1) * (1 if self.block == "basic" else 4)
            stride = 2 if group > 1 and names[0].endswith(".block1") else 1
            found.append(Place(group, tuple(names), chans, out, stride, survives(self, index, len(spans))))
            chans = out
        return found

    def has_shortcut(self, place: Place) -> bool:
        """Return whether a fusion has a shortcut beside its branches."""
        return True

    def ends_group(self, place: Place) -> bool:
        """Return whether the fusion is the last one of its group, and so of its resolution."""
        return place.blocks[-1] == f"group{place.group}.block{self.group_blocks[place.group - 1]}"

    def branch(self, b: NetBuilder, z: str, place: Place, label: str) -> str:
        """Add a branch B of one fusion; the ReLU of its last layer comes after the join. Return the output node."""
        chans, stride = place.in_chans, place.stride
        for name in place.blocks:
            z = b.chain(f"{name}.{label}", z, self.layer_units(chans, place.out_chans, stride, name == place.name))
            chans, stride = place.out_chans, 1
        return z

    def layer_units(self, in_chans: int, out_chans: int, stride: int, last: bool) -> list[nn.Module]:
        """Make the layers of one block; the ``last`` block of a fusion ends without ReLU."""
        order = "conv-norm" if last else "conv-norm-act"
        if self.block == "basic":
            return [ConvUnit(in_chans, out_chans, 3, stride), ConvUnit(out_chans, out_chans, 3, order=order)]
        mid, first = out_chans // 4, stride if self.stride_at == "1x1" else 1
        return [
            ConvUnit(in_chans, mid, 1, first),
            ConvUnit(mid, mid, 3, stride // first),
            ConvUnit(mid, out_chans, 1, order=order),
        ]

    def shortcut(self, b: NetBuilder, z: str, place: Place, number: str = "") -> str:
        """Add the shortcut S of one fusion: projection, identity, or a separate block. Return the output node."""
        name = place.blocks[0]
        if place.resized:
            projection = ConvUnit(place.in_chans, place.out_chans, 1, place.stride, order="conv-norm")
            return b.add(f"{name}.shortcut{number}", z, projection)
        if self.shallow == "block":
            return b.chain(f"{name}.shallow{number}", z, self.layer_units(place.in_chans, place.out_chans, 1, True))
        return z

    def selectors(self) -> Selectors:
        return {"route": self._route, "units": self._units}

    def path_names(self) -> list[str]:
        most = min(self._group_fusions())
        return [f"units={n}" for n in sorted({most // 4, most // 2, most * 3 // 4} - {0}, reverse=True)]

    def path_sets(self) -> dict[str, list[str]]:
        known = self.path_names()
        starts = {"routes": "route=", "depths": "units="}
        return {name: [text for text in known if text.startswith(start)] for name, start in starts.items()}

    def _group_fusions(self) -> list[int]:
        return [-(-blocks // self.span) for blocks in self.group_blocks]

    def _route(self, wiring: Wiring, value: str) -> Choices:
        raise NotImplementedError

    def _skipped(self, place: Place) -> Choices:
        """Return the choice that runs only the shortcut of a fusion."""
        raise NotImplementedError

    def _units(self, wiring: Wiring, value: str) -> Choices:
        """Read one number for all groups, ``2``, or one per group, ``2/3/1``. That many fusions at the start of a group
        run completely. Of the other fusions, only the shortcut runs; a fusion without a shortcut runs completely."""
        most = self._group_fusions()
        numbers = value.split("/")
        if len(numbers) == 1:
            wanted = [whole_text("units", value, 0, min(most))] * len(most)
        elif len(numbers) == len(most):
            wanted = [
                whole_text(f"units of group {g}", text, 0, high)
                for g, (text, high) in enumerate(zip(numbers, most, strict=True), 1)
            ]
        else:
            raise ValueError(
                f"units {value!r}: give one number, or {len(most)} numbers separated by '/', one for each group"
            )
        choice: Choices = {}
        before = dict.fromkeys(range(1, len(most) + 1), 0)
        for place in self.places():
            before[place.group] += 1
            if before[place.group] > wanted[place.group - 1] and self.has_shortcut(place):
                choice |= self._skipped(place)
        return still_there(self, wiring, f"units={value}", choice)


@dataclass(frozen=True, kw_only=True)
class ResNet(Residual, name="resnet"):
    """ResNet: each fusion has a shortcut (L) and one branch (R), so K fusions have 2^K paths.

    With basic blocks, the depth is 2 + 2·(number of blocks). With ``start="identity"`` the last norm of each branch
    beside a shortcut has scale 0 (Goyal et al. 2017), so initially a fusion returns its shortcut.
    """

    starts = ("drawn", "identity")

    @property
    def deep(self) -> tuple[str, ...]:
        """Labels of the branches."""
        return ("R",)

    def build_graph(self, b: NetBuilder) -> str:
        z = begin(b, self.in_chans, self.width, self.stem)
        for place in self.places():
            operands = {"L": self.shortcut(b, z, place)} if self.has_shortcut(place) else {}
            for label in self.deep:
                operands[label] = self.branch(b, z, place, f"branch{label[1:]}")
            survival = dict.fromkeys(self.deep, place.survival)
            z = b.join(f"{place.name}.join", operands, self.join, survival=survival)
            z = b.add(f"{place.name}.relu", z, nn.ReLU())
            if self.ends_group(place):
                b.stage(z)
        return end(b, z, self.places()[-1].out_chans, self.num_classes)

    def start_as_identity(self, net: PathNet) -> None:
        for place in filter(self.has_shortcut, self.places()):
            for label in self.deep:
                last = net.get_submodule(f"{place.name}.branch{label[1:]}.unit{self.layers}")
                assert isinstance(last, ConvUnit)
                assert isinstance(last.norm, nn.BatchNorm2d)
                nn.init.zeros_(last.norm.weight)

    def path_names(self) -> list[str]:
        fusions = len(self.places())
        routes = [f"route={letter * fusions}" for letter in "RL"] if fusions <= 16 else []
        return super().path_names() + routes

    def _route(self, wiring: Wiring, value: str) -> Choices:
        """Read a route, such as ``RLL``: one operand for each fusion. A route is one component network (§3.1)."""
        places = self.places()
        shallow = ["L"] if self.has_shortcut(places[0]) else []
        sides = read_route(value, [*shallow, *self.deep], len(places))
        choice = {f"{place.name}.join": [side] for place, side in zip(places, sides, strict=True)}
        return still_there(self, wiring, f"route={value}", choice)

    def _skipped(self, place: Place) -> Choices:
        return {f"{place.name}.join": ["L"]}


# --- parts of the families in this file and in ``fusenet`` ---------------------------------------------------


class Deep(Protocol):
    """A family with a depth in layers."""

    @property
    def depth(self) -> int: ...


class Droppable(Protocol):
    """A family with stochastic depth."""

    @property
    def join(self) -> str: ...
    @property
    def survival(self) -> float: ...
    @property
    def survival_rule(self) -> str: ...


def begin(b: NetBuilder, in_chans: int, width: int, stem: str = "cifar") -> str:
    """Add the layers before the first fusion (C in §3); return the output node."""
    if stem == "cifar":
        return b.add("stem.unit", b.input, ConvUnit(in_chans, width), depth=1)
    z = b.stage(b.add("stem.unit", b.input, ConvUnit(in_chans, width, 7, 2), depth=1))
    return b.add("stem.pool", z, nn.MaxPool2d(3, 2, padding=1))


def end(b: NetBuilder, z: str, chans: int, num_classes: int) -> str:
    """Add the global average pool and the classifier (FC in §3), which DFN's Table 1 counts as a layer.

    Return the output node.
    """
    z = b.add("head.pool", z, nn.AdaptiveAvgPool2d(1))
    z = b.add("head.flatten", z, nn.Flatten())
    return b.add("head.classifier", z, nn.Linear(chans, num_classes), depth=1)


def share(units: int, groups: int) -> tuple[int, ...]:
    """Divide units over groups: each group in order gets floor(units left / groups left)."""
    shares: list[int] = []
    for left in range(groups, 0, -1):
        shares.append(units // left)
        units -= shares[-1]
    return tuple(shares)


def whole_units(spec: Deep, layers: int, least: int) -> int:
    """Return how many units of ``layers`` layers are in the spec's depth, without the first conv and the classifier.

    Raises:
        ValueError: the number is not whole, or is less than ``least``. The message contains the nearest legal depths.
    """
    units, rest = divmod(spec.depth - 2, layers)
    if rest or units < least:
        near = dict.fromkeys(2 + layers * max(n, least) for n in (units, units + 1))
        raise ValueError(
            f"{type(spec).__name__}.depth = {spec.depth}: must be 2 + {layers}·n with n at least {least}; "
            f"the nearest legal depth is {' or '.join(map(str, near))}"
        )
    return units


def survives(spec: Droppable, fusion: int, fusions: int) -> float:
    """Compute the survival probability p_l of stochastic depth for fusion l of L."""
    return 1.0 - (fusion / fusions if spec.survival_rule == "linear" else 1.0) * (1.0 - spec.survival)


def check_survival(spec: Droppable) -> None:
    """Raise ``ValueError`` unless the spec's stochastic depth is possible."""
    check_fields(spec, survival_rule=one_of("linear", "uniform"), survival=number(above=0, high=1))
    if spec.survival < 1.0 and spec.join != "sum":
        raise ValueError(f"{type(spec).__name__}.survival = {spec.survival}: requires join = 'sum', not {spec.join!r}")


def read_route(value: str, legal: Sequence[str], fusions: int) -> list[str]:
    """Read the operand of each fusion from a route's text, such as ``RLL`` or ``LR1R2``.

    Raises:
        ValueError: a letter is not an operand, or the number of letters is not the number of fusions.
    """
    letters = re.findall(r"[A-Z]\d*", value)
    if "".join(letters) != value or not set(letters) <= set(legal):
        raise ValueError(f"route {value!r}: must have one of {', '.join(legal)} for each of the {fusions} fusions")
    if len(letters) != fusions:
        raise ValueError(
            f"route {value!r} has {len(letters)} letters: must have {fusions}, one for each of the {fusions} fusions"
        )
    return letters


def still_there(spec: Family, wiring: Wiring, text: str, choice: Choices) -> Choices:
    """Return the part of a choice that still has to be made in ``wiring``.

    ``choice`` is a choice on the family's full wiring. ``wiring`` may be the wiring of an extracted network.

    Raises:
        ValueError: the extracted network lacks nodes of the choice.
    """
    here = {join: labels for join, labels in choice.items() if join in wiring.joins}
    if len(here) == len(choice):
        return here
    with torch.device("meta"):
        b = NetBuilder()
        full = b.wiring(spec.full_graph(b))
    return left_open(full, wiring, text, choice)


def left_open(full: Wiring, wiring: Wiring, text: str, choice: Choices) -> Choices:
    """Return the part of a choice on ``full`` that still has to be made in ``wiring``, extracted from ``full``.

    Raises:
        ValueError: the extracted network lacks nodes of the choice.
    """
    here = {join: labels for join, labels in choice.items() if join in wiring.joins}
    whole = {join: tuple(labels) for join, labels in choice.items()}
    lost = any(set(labels) - set(wiring.joins[join].labels) for join, labels in here.items())
    if lost or full.prune(whole) != wiring.prune({join: whole[join] for join in here}):
        raise ValueError(f"{text}: this extracted network no longer has this path")
    return here


def from_timm_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a timm (or torchvision) ResNet's state dict to those of Polypath's ``imagenet`` ResNets.

    This works for plain ResNets of basic blocks or bottlenecks (``resnet18`` … ``resnet152``, but not
    ``wide_resnet``) whose bottlenecks have the stride at the 3×3 conv.

    Raises:
        ValueError: a key does not belong to such a network.
    """
    return {_renamed(key): tensor for key, tensor in state.items()}


_TIMM = (
    (r"conv1\.(\w+)", r"stem.unit.conv.\1"),
    (r"bn1\.(\w+)", r"stem.unit.norm.\1"),
    (r"layer(\d+)\.(\d+)\.conv(\d+)\.(\w+)", r"group\1.block{block}.branch.unit\3.conv.\4"),
    (r"layer(\d+)\.(\d+)\.bn(\d+)\.(\w+)", r"group\1.block{block}.branch.unit\3.norm.\4"),
    (r"layer(\d+)\.(\d+)\.downsample\.0\.(\w+)", r"group\1.block{block}.shortcut.conv.\3"),
    (r"layer(\d+)\.(\d+)\.downsample\.1\.(\w+)", r"group\1.block{block}.shortcut.norm.\3"),
    (r"fc\.(\w+)", r"head.classifier.\1"),
)


def _renamed(key: str) -> str:
    for pattern, ours in _TIMM:
        if match := re.fullmatch(pattern, key):
            name = match.expand(ours)
            return name.format(block=int(match[2]) + 1) if "{block}" in name else name
    raise ValueError(f"state dict key {key!r}: must be a key of a plain ResNet: conv1, bn1, layerN.M.*, fc")


TABLE_4 = {26: 0.4, 38: 0.6, 50: 0.8, 62: 1.0, 74: 1.2, 98: 1.5, 110: 1.7, 194: 3.1}
"""Maps the depth of a plain net or ResNet to its number of parameters in the paper, in millions."""


def _imagenet(table: str, printed: dict[str, float], blocks: tuple[int, ...] = (3, 4, 6, 3), **fields: Any) -> Preset:
    spec = ResNet(blocks=blocks, width=64, block="bottleneck", stem="imagenet", num_classes=1000, **fields)
    return Preset(spec, table, printed, size=224)


PRESETS = {
    f"resnet{depth}_cifar": Preset(
        ResNet(depth=depth),
        "Table 4, ResNet" if depth in TABLE_4 else "Fig. 4, ResNet",
        {"depth": depth} | ({"params": TABLE_4[depth]} if depth in TABLE_4 else {}),
    )
    for depth in (*range(20, 111, 6), 194)
} | {
    "fusenet_resnet50_imagenet": _imagenet("Table 7, ResNet-50", {"depth": 50}),
    "fusenet_resnet101_imagenet": _imagenet("Table 6, ResNet-101", {"params": 44.5, "depth": 101}, (3, 4, 23, 3)),
    "dfn1_imagenet": _imagenet("Table 7, DFN1 (a candidate)", {"depth": 50}, shallow="block"),
    "dfn2_imagenet": _imagenet("Table 7, DFN2 (a candidate)", {"depth": 50}, span=2),
}
