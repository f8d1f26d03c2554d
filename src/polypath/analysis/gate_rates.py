"""Gates that keep to their target in evaluation (DRNN §3, after ConvNet-AIG).

In training gates are sampled, and the loss holds the rate of the samples. In evaluation the larger logit decides, and
nothing holds that rate: where a gate is undecided the two lie far apart. :func:`correct_gates` shifts each gate's bias
until its rate on held-out images is the target's. One gate stands before all loops of its block, so the rate that
counts is the block's: what was let pass of all that reached, over its loops.
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

STEPS = 60  # of a bisection in float64


@dataclass(frozen=True, kw_only=True)
class GateCorrection:
    """What :func:`correct_gates` did.

    Attributes:
        target, tolerance, over: as they were given.
        images: that the rates were taken on.
        before, after: rate of each block on them.
        shifts: what was added to each gate's bias.
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
        """The blocks that are still off the target by more than the tolerance, with their rates: a gate that answers
        all images alike lets pass all or none of them, whatever its bias."""
        return {name: rate for name, rate in self.after.items() if not abs(rate - self.target) <= self.tolerance}

    @property
    def record(self) -> dict[str, Any]:
        """What a saved network says of it."""
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
    """A copy of a gated network whose gates let pass ``target`` of the images in evaluation.

    Blocks are corrected in order of depth, since what a gate lets pass is what later ones see; each by bisecting the
    bias of its gate. The copy is another network than the trained one and says so: ``config["gates"]``, and its card.

    Args:
        batches: held-out ``(images, labels)``; gone through once for each block.
        target: the rate, in [0, 1].
        tolerance: how far a rate may be off; blocks that stay farther are ``unmet``.
        over: rate among the images ``reaching`` a gate, or among ``all``.

    Raises:
        ValueError: a network without gates, no images, a target outside [0, 1], another ``over``.
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
    """Rate of each gated switch in evaluation, over its loops, and the number of images; NaN where none reached it.

    Raises:
        ValueError: a network without gates, no images.
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
    """By how much each gate of a switch prefers to open ``(images, gates)``, float64, were all loops before it run."""
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
    """What to add to the margins so that their rate comes closest to the target; 0 where it makes no difference.

    The rate rises with the shift: one loop more adds one image to those let pass and at most one to those that reach.
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
    passed = (margins > 0).cumprod(1).sum(1)  # loops that each image runs
    reached = (passed + 1).clamp(max=margins.shape[1]) if over == "reaching" else margins.shape[1]
    total = int(reached.sum()) if isinstance(reached, Tensor) else reached * len(margins)
    return float(passed.sum()) / total
