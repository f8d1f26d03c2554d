"""Correction of gates to their target rate in evaluation (DRNN §3, after ConvNet-AIG).

In training, gates are sampled, and the loss controls the rate of the samples. In evaluation, the larger logit decides,
and nothing controls the rate. For an undecided gate, the two rates differ widely. :func:`correct_gates` shifts each
gate's bias until the gate's rate on held-out images meets the target. All loops of a block use the same gate. So a
block has one rate: the number of images that pass the gate divided by the number that reach it, both summed over the
block's loops.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from polypath.analysis.loops import loops_taken
from polypath.core.checks import SHARE, check, number, one_of
from polypath.core.execute import Trace
from polypath.core.gating import Over
from polypath.core.network import PathNet
from polypath.core.wiring import Join

STEPS = 60  # steps of a bisection in float64


@dataclass(frozen=True, kw_only=True)
class GateCorrection:
    """A record of a call of :func:`correct_gates`.

    Attributes:
        target, tolerance, over: the arguments of the call.
        images: number of images that the rates were measured on.
        before, after: the rate of each block on these images, before and after the correction.
        shifts: the amount added to each gate's bias.
    """

    target: float
    tolerance: float
    over: Over
    images: int
    before: dict[str, float]
    after: dict[str, float]
    shifts: dict[str, float]

    @property
    def unmet(self) -> dict[str, float]:
        """The rates of the blocks that still miss the target by more than the tolerance. If a gate's logits are the
        same for all images, the gate passes all images or none, whatever its bias is."""
        return {name: rate for name, rate in self.after.items() if not abs(rate - self.target) <= self.tolerance}

    @property
    def record(self) -> dict[str, Any]:
        """The record that is saved with the network."""
        told = {"target": self.target, "tolerance": self.tolerance, "over": self.over, "images": self.images}
        return told | {"rates": {name: round(rate, 4) for name, rate in self.after.items()}}


@torch.no_grad()
def correct_gates(
    net: PathNet,
    batches: Iterable[Sequence[Tensor]],
    target: float,
    *,
    tolerance: float = 0.01,
    over: Over = "reaching",
) -> tuple[PathNet, GateCorrection]:
    """Copy a gated network and shift the copy's gates so that they pass a share ``target`` of the images in evaluation.

    Blocks are corrected in order of depth, since a gate decides which images later gates see. Each bias is found by
    bisection. The copy's ``config["gates"]`` and its card record the correction.

    Args:
        batches: held-out ``(images, labels)``, iterated over once for each block.
        target: the rate, in [0, 1].
        tolerance: allowed deviation from the target. Blocks with a larger deviation are ``unmet``.
        over: ``reaching`` if the rate is a share of the images that reach a gate, ``all`` if of all images.

    Raises:
        ValueError: the network has no gates, there are no images, ``target`` is outside [0, 1], or ``over`` is unknown.
    """
    check("target", target, SHARE)
    check("tolerance", tolerance, number(above=0))
    check("over", over, one_of(*get_args(Over)))
    before, _ = rates_of_blocks(net, batches, over)
    corrected, shifts = copy.deepcopy(net).eval(), {}
    for switch in corrected.wiring.joins.values():
        if switch.name in before:
            shift = _shift(_margins(corrected, switch, batches), target, over)
            bias = corrected.get_submodule(f"{switch.gates[0].module}.last").bias
            assert isinstance(bias, Tensor)
            bias[1] += shift
            shifts[switch.name] = shift
    after, images = rates_of_blocks(corrected, batches, over)
    correction = GateCorrection(
        target=target, tolerance=tolerance, over=over, images=images, before=before, after=after, shifts=shifts
    )
    corrected.config["gates"] = correction.record
    corrected.train(net.training)
    return corrected, correction


def rates_of_blocks(
    net: PathNet, batches: Iterable[Sequence[Tensor]], over: Over = "reaching"
) -> tuple[dict[str, float], int]:
    """Measure the rate of each gated switch in evaluation, summed over its loops. Return the rates (NaN for a switch
    that no image reached) and the number of images.

    Raises:
        ValueError: the network has no gates, or there are no images.
    """
    taken = loops_taken(net, batches)
    images, sums = len(taken.images), dict[str, list[int]]()
    columns = (taken.gates[name].tolist() for name in ("switch", "reached", "passed"))
    for switch, reached, passed in zip(*columns, strict=True):
        at = sums.setdefault(switch, [0, 0])
        at[0] += reached if over == "reaching" else images
        at[1] += passed
    return {name: passed / total if total else float("nan") for name, (total, passed) in sums.items()}, images


def _margins(net: PathNet, switch: Join, batches: Iterable[Sequence[Tensor]]) -> Tensor:
    """Return the margin by which each gate of a switch opens, ``(images, gates)`` float64: its second logit minus its
    first. All loops run, whatever the gates decide."""
    gates, device = switch.gates, next(net.parameters()).device
    sources, whole = frozenset(gate.source for gate in gates), net.paths({switch.name: switch.labels[-1:]})
    rows: list[Tensor] = []
    for x, *_ in batches:
        trace = Trace(sources)
        net(x.to(device), paths=whole, trace=trace)
        logits = [net.get_submodule(gate.module)(trace.values[gate.source]).double() for gate in gates]
        rows.append(torch.stack([of[:, 1] - of[:, 0] for of in logits], 1).cpu())
    return torch.cat(rows)


def _shift(margins: Tensor, target: float, over: Over) -> float:
    """Return the shift of the margins that brings the rate closest to the target, or 0 if no shift helps.

    The rate rises with the shift: one more loop adds one passed image, and at most one image that reaches a gate.
    """
    low, high = float(-margins.max()) - 1.0, float(-margins.min()) + 1.0
    best, found = 0.0, _rate(margins, over)
    for _ in range(STEPS):
        middle = (low + high) / 2
        rate = _rate(margins + middle, over)
        if abs(rate - target) < abs(found - target):
            best, found = middle, rate
        low, high = (middle, high) if rate < target else (low, middle)
    return best


def _rate(margins: Tensor, over: Over) -> float:
    passed = (margins > 0).cumprod(1).sum(1)  # number of loops that each image runs
    reached = (passed + 1).clamp(max=margins.shape[1]) if over == "reaching" else margins.shape[1]
    total = int(reached.sum()) if isinstance(reached, Tensor) else reached * len(margins)
    return float(passed.sum()) / total
