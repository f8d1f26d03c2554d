"""Deeply-fused nets (Zhao et al. 2016): a deep and a shallow base network whose blocks are fused one by one.

§3      x_k = H_k(B_k^L(x_{k-1}), B_k^R(x_{k-1}))       k = 1..K, H the sum, the maximum or another combinator
        plain    R alone
        N_fK     R is x layers per block; L is one layer at first and where the size changes, else the identity (Fig. 3)
§5      DFN-IL   z' = relu(S(z) + B^1(z) + B^2(z))       inception-like (Fig. 6a)
        DFN-MR   m = (S^1(x) + S^2(y)) / 2               merge-and-run (Fig. 6b)
                 x' = relu(m + B^1(x)),  y' = relu(m + B^2(y)); the last fusion only gives relu(m + B^1(x) + B^2(y))

B and S are as in ResNet (:mod:`polypath.families.resnet`). One fusion of DFN-IL or DFN-MR replaces two
blocks of a ResNet.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import FLAG, check_fields, one_of, whole, whole_text
from polypath.core.later import later
from polypath.core.paths import Selectors
from polypath.core.wiring import Wiring
from polypath.families.base import Preset, check_size
from polypath.families.resnet import (
    TABLE_4,
    Choices,
    Normed,
    Place,
    Residual,
    ResNet,
    begin,
    check_survival,
    end,
    read_route,
    share,
    still_there,
    survives,
    whole_units,
)
from polypath.layers.conv import ConvUnit

PAPER = "Deep Fusion, 2016"


@dataclass(frozen=True, kw_only=True)
class PlainNet(Normed, name="plain"):
    """The deep base network alone. It has ``depth`` layers, with convs in three groups of w, 2w and 4w maps (w =
    ``width``)."""

    depth: int = 26
    width: int = 16
    init: str = "he_fan_in"

    paper = PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, width=whole(1), depth=whole(0))
        check_size(self, whole_units(self, 1, least=3), 3, "depth")

    def build_graph(self, b: NetBuilder) -> str:
        z, chans = begin(b, self.in_chans, self.width), self.width
        for group, layers in enumerate(share(whole_units(self, 1, least=3), 3), 1):
            out = self.width * 2 ** (group - 1)
            z = b.chain(f"group{group}", z, layers_of(chans, out, layers, 2 if group > 1 else 1, last_relu=True))
            chans = out
            b.stage(z)
        return end(b, z, chans, self.num_classes)


@dataclass(frozen=True, kw_only=True)
class FusedNet(Normed, name="fusenet"):
    """N_fK: a plain net of ``depth`` = 2 + K·x layers, fused with a shallow net of 5 layers in K = ``fusions`` places.

    The fusions are divided over three groups of w, 2w and 4w maps (w = ``width``), like the blocks of a ResNet.

    Args:
        join: the combinator: ``sum``, ``max`` or ``concat``. With ``concat`` there are no paths to choose, because the
            next fusion reads all concatenated maps.
        survival: p_L of stochastic depth, the probability that the last fusion keeps its deep block.
        survival_rule: ``linear`` or ``uniform``, as in :class:`~polypath.families.resnet.Residual`.
    """

    depth: int = 14
    fusions: int = 3
    width: int = 16
    join: str = "sum"
    survival: float = 1.0
    survival_rule: str = "linear"
    init: str = "he_fan_in"

    paper = PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, fusions=whole(3), width=whole(1), depth=whole(0), join=one_of("sum", "max", "concat"))
        check_survival(self)
        check_size(self, self.fusions * whole_units(self, self.fusions, least=1), 3, "depth", "fusions")

    def build_graph(self, b: NetBuilder) -> str:
        layers = whole_units(self, self.fusions, least=1)  # x, the layers of each deep block
        z, chans, k = begin(b, self.in_chans, self.width), self.width, 0
        for group, fusions in enumerate(share(self.fusions, 3), 1):
            out = self.width * 2 ** (group - 1)
            for i in range(fusions):
                k += 1
                stride = 2 if group > 1 and i == 0 else 1
                left, left_chans = z, chans
                if i == 0:
                    left, left_chans = b.chain(f"fusion{k}.L", z, layers_of(chans, out, 1, stride)), out
                right = b.chain(f"fusion{k}.R", z, layers_of(chans, out, layers, stride))
                survival = {"R": survives(self, k, self.fusions)}
                z = b.join(f"fusion{k}.join", {"L": left, "R": right}, self.join, survival=survival)
                z = b.add(f"fusion{k}.relu", z, nn.ReLU())
                chans = left_chans + out if self.join == "concat" else out
            b.stage(z)
        return end(b, z, chans, self.num_classes)

    def selectors(self) -> Selectors:
        return {} if self.join == "concat" else {"route": self._route}

    def path_names(self) -> list[str]:
        """List the eight routes that stay on one side within each group, in Table 1's order. K = 3 has only these."""
        if self.join == "concat":
            return []
        sizes = share(self.fusions, 3)
        routes: list[str] = []
        for deep in range(4):
            for groups in itertools.combinations(range(3), deep):
                letters = ("R" if g in groups else "L" for g in range(3))
                routes.append("".join(letter * n for letter, n in zip(letters, sizes, strict=True)))
        return [f"route={route}" for route in routes]

    def path_sets(self) -> dict[str, list[str]]:
        return {"routes": self.path_names()}

    def _route(self, wiring: Wiring, value: str) -> Choices:
        """Read a route with one letter per fusion: ``RLL`` is the component network B_1^R → B_2^L → B_3^L (§3.1)."""
        sides = read_route(value, ["L", "R"], self.fusions)
        choice = {f"fusion{k}.join": [side] for k, side in enumerate(sides, 1)}
        return still_there(self, wiring, f"route={value}", choice)


def layers_of(in_chans: int, out_chans: int, layers: int, stride: int, last_relu: bool = False) -> list[nn.Module]:
    """Make a chain of 3×3 layers. The first layer has the stride. Unless ``last_relu`` is true, the last layer has no
    ReLU, because a sum follows."""
    orders = ["conv-norm-act"] * (layers - 1) + ["conv-norm-act" if last_relu else "conv-norm"]
    return [
        ConvUnit(in_chans if i == 0 else out_chans, out_chans, 3, stride if i == 0 else 1, order=order)
        for i, order in enumerate(orders)
    ]


@dataclass(frozen=True, kw_only=True)
class InceptionLike(ResNet, name="dfn_il"):
    """DFN-IL: each fusion has a shortcut (L) and ``branches`` parallel branches (R1, R2, …).

    With two branches, K fusions have 3^K paths.

    Args:
        shortcuts: whether fusions have shortcuts. Without shortcuts, this is ``side``, a network of the released code
            that is not in the paper. With two branches, ``side`` has 2^K paths. Its fusions cannot be skipped.
    """

    branches: int = 2
    shortcuts: bool = later(True)

    paper = PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, branches=whole(2), shortcuts=FLAG)
        self.check_layers(self.branches, "branches")

    def has_shortcut(self, place: Place) -> bool:
        return self.shortcuts

    @property
    def deep(self) -> tuple[str, ...]:
        return tuple(f"R{n}" for n in range(1, self.branches + 1))

    def selectors(self) -> Selectors:
        known = {**super().selectors(), "stream": self._stream}
        return known if self.shortcuts else {key: known[key] for key in ("route", "stream")}

    def path_names(self) -> list[str]:
        units = Residual.path_names(self) if self.shortcuts else []
        return [f"stream={n}" for n in range(1, self.branches + 1)] + units

    def _stream(self, wiring: Wiring, value: str) -> Choices:
        """Choose one base network with its shortcuts: stream ``1`` is the ResNet with branch 1 in each fusion."""
        number = whole_text("stream", value, 1, self.branches)
        labels = ["L", f"R{number}"] if self.shortcuts else [f"R{number}"]
        choice = {f"{place.name}.join": labels for place in self.places()}
        return still_there(self, wiring, f"stream={value}", choice)


@dataclass(frozen=True, kw_only=True)
class MergeAndRun(Residual, name="dfn_mr"):
    """DFN-MR: parallel networks (streams) whose shortcuts are averaged in every fusion.

    With two streams, K fusions have 4·3^(K-1) paths.

    Fusion ``group1.block2`` has the joins ``merge`` (the mean of operands 1 and 2), ``stream1`` and ``stream2`` (L is
    the merged shortcut, R the stream's branch). Instead of the stream joins, the last fusion has ``out`` (L, R) and
    ``both`` (1, 2).

    Args:
        streams: number of parallel networks.
        projections: whether there are shortcuts where the size changes; if not, nothing is merged there.
        ending: output of the last fusion: ``sum``, as in Fig. 6, or ``concat`` of all streams. With ``concat``, no
            single stream can be chosen.

    ``projections=False, ending="concat"`` with blocks (1, 2, 11, 2) is a network of the released code (46.4M) that is
    not in the paper.
    """

    streams: int = 2
    projections: bool = later(True)
    ending: str = later("sum")

    paper = PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, streams=whole(2), projections=FLAG, ending=one_of("sum", "concat"))
        self.check_layers(self.streams, "streams")
        if self.ending == "sum" and not self.has_shortcut(self.places()[-1]):
            told = "the last fusion changes the size, so without projections there is no shortcut to sum"
            raise ValueError(f"{type(self).__name__}.projections = False: {told}; set ending = 'concat'")

    def has_shortcut(self, place: Place) -> bool:
        return self.projections or not place.resized

    def build_graph(self, b: NetBuilder) -> str:
        streams = dict.fromkeys(self._numbers, begin(b, self.in_chans, self.width, self.stem))
        *places, last = self.places()
        for place in places:
            streams = self._fused(b, streams, place)
            if self.ends_group(place):
                for z in streams.values():
                    b.stage(z, f"{place.name}.relu")  # one stage for all streams: their mean
        if self.ending == "concat":
            z = b.stage(b.join("end", self._fused(b, streams, last), "concat"))
            return end(b, z, last.out_chans * self.streams, self.num_classes)
        merged, branches = self._merge(b, streams, last)
        both = b.join(f"{last.name}.both", branches, self.join)
        z = b.join(f"{last.name}.out", {"L": merged, "R": both}, self.join, survival={"R": last.survival})
        z = b.stage(b.add(f"{last.name}.relu", z, nn.ReLU()))
        return end(b, z, last.out_chans, self.num_classes)

    def _fused(self, b: NetBuilder, streams: dict[str, str], place: Place) -> dict[str, str]:
        """Add one fusion; return the output node of each stream."""
        merged, found = "", dict[str, str]()
        if self.has_shortcut(place):
            merged, branches = self._merge(b, streams, place)
        else:
            branches = self._branches(b, streams, place)
        for s, z in branches.items():
            if merged:
                operands, survival = {"L": merged, "R": z}, {"R": place.survival}
                z = b.join(f"{place.name}.stream{s}", operands, self.join, survival=survival)
            found[s] = b.add(f"{place.name}.relu{s}", z, nn.ReLU())
        return found

    def _merge(self, b: NetBuilder, streams: dict[str, str], place: Place) -> tuple[str, dict[str, str]]:
        """Add the merged shortcut m and the branches of one fusion; return m, and each branch's output by stream."""
        shortcuts = {s: self.shortcut(b, z, place, s) for s, z in streams.items()}
        branches = self._branches(b, streams, place)
        return b.join(f"{place.name}.merge", shortcuts, "mean"), branches

    def _branches(self, b: NetBuilder, streams: dict[str, str], place: Place) -> dict[str, str]:
        return {s: self.branch(b, z, place, f"branch{s}") for s, z in streams.items()}

    @property
    def _numbers(self) -> list[str]:
        return [str(s) for s in range(1, self.streams + 1)]

    def selectors(self) -> Selectors:
        if self.ending == "concat":  # all streams always run
            return {"units": super().selectors()["units"]}
        return {**super().selectors(), "stream": self._stream}

    def path_names(self) -> list[str]:
        streams = [f"stream={s}" for s in self._numbers] if self.ending == "sum" else []
        return streams + super().path_names()

    def _stream(self, wiring: Wiring, value: str) -> Choices:
        """Choose one base network with its shortcuts: stream ``1`` is the ResNet with branch 1 in each fusion."""
        whole_text("stream", value, 1, self.streams)
        *places, last = self.places()
        merged = [place for place in (*places, last) if self.has_shortcut(place)]
        choice = {f"{place.name}.merge": [value] for place in merged} | {f"{last.name}.both": [value]}
        return still_there(self, wiring, f"stream={value}", choice)

    def _route(self, wiring: Wiring, value: str) -> Choices:
        """Read a route such as ``R1L1R2``: for each fusion, its side (branch R or shortcut L) and the stream it reads.

        After a branch, the next fusion must read the same stream. Shortcuts are merged, so the fusion after a shortcut
        may read any stream."""
        places = self.places()
        steps = read_route(value, [side + s for side in "LR" for s in self._numbers], len(places))
        choice: Choices = {}
        for k, (place, step) in enumerate(zip(places, steps, strict=True)):
            side, stream = step[0], step[1:]
            if side == "L" and not self.has_shortcut(place):
                raise ValueError(
                    f"route {value!r}: fusion {k + 1} has no shortcut, so it must be R{stream}, not {step}"
                )
            into = "out"
            if k + 1 < len(places):
                after = steps[k + 1][1:]
                into = f"stream{after}"
                if side == "R" and after != stream:
                    raise ValueError(
                        f"route {value!r}: {step} at fusion {k + 1} stays in stream {stream}, "
                        f"so L{stream} or R{stream} must follow, not {steps[k + 1]}"
                    )
            elif side == "R":
                choice[f"{place.name}.both"] = [stream]
            if side == "L":
                choice[f"{place.name}.merge"] = [stream]
            if self.has_shortcut(place):
                choice[f"{place.name}.{into}"] = [side]
        return still_there(self, wiring, f"route={value}", choice)

    def _skipped(self, place: Place) -> Choices:
        summed = place.name == self.places()[-1].name and self.ending == "sum"
        joins = ["out"] if summed else [f"stream{s}" for s in self._numbers]
        return {f"{place.name}.{join}": ["L"] for join in joins}


TABLE_1 = (14, 20, 26, 38, 50, 56, 62, 74, 98, 110)
FIGURE_4 = range(20, 111, 6)

PRESETS: dict[str, Preset] = {
    f"plain{depth}_cifar": Preset(
        PlainNet(depth=depth),
        "Table 4, plain" if depth in TABLE_4 else "Fig. 2, plain",
        {"depth": depth} | ({"params": TABLE_4[depth]} if depth in TABLE_4 else {}),
    )
    for depth in (14, *FIGURE_4, 194)
}
for _k in (3, 6):
    for _depth in (14, *FIGURE_4):
        _table = "Table 1, DFN" if _k == 3 and _depth in TABLE_1 else f"Fig. 4, N_f{_k}"
        PRESETS[f"fusenet_nf{_k}_{_depth}"] = Preset(FusedNet(depth=_depth, fusions=_k), _table, {"depth": _depth})
for _depth, _millions in TABLE_4.items():
    _half, _printed = _depth // 2 + 1, {"params": _millions, "depth": _depth // 2 + 1}
    PRESETS[f"dfn_il{_half}"] = Preset(InceptionLike(depth=_half), "Table 4, DFN-IL", _printed)
    PRESETS[f"dfn_mr{_half}"] = Preset(MergeAndRun(depth=_half), "Table 4, DFN-MR", _printed)
for _n, (_depth, _width, _millions) in enumerate([(56, 16, 1.7), (32, 64, 14.9), (50, 64, 24.8)], 1):
    _printed = {"params": _millions, "depth": _depth}
    PRESETS[f"dfn_mr{_n}"] = Preset(MergeAndRun(depth=_depth, width=_width), f"Table 5, DFN-MR{_n}", _printed)
PRESETS["dfn_mr_imagenet"] = Preset(
    MergeAndRun(blocks=(2, 2, 8, 2), width=64, block="bottleneck", stem="imagenet", num_classes=1000),
    "Table 6, DFN-MR",
    {"params": 43.3},
    size=224,
)
