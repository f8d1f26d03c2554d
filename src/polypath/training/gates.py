"""The target-rate loss of gates (DRNN §3, after ConvNet-AIG), which penalises a gate's deviation from its target rate.

loss = cross-entropy + λ · mean over gates of (t − rate)². Here, rate is the share of samples that pass the gate: a
share of the samples that reach the gate (the default), or of all samples of the mini-batch. With t = 0.7, only the
default gives the 11.921 expected loops that the paper states for DR-ResNet-53.
A :class:`polypath.core.network.Trace` records the decisions of the gates::

    trace = Trace()
    loss = criterion(net(x, trace=trace, generator=g), y) + 2.0 * target_rate_loss(trace, target=0.7)
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from polypath.core.checks import SHARE, check, one_of
from polypath.core.execute import Trace
from polypath.core.gating import Over
from polypath.core.network import PathNet
from polypath.core.precision import at_least_float32
from polypath.training.distributed import World


def gate_rates(trace: Trace, over: Over = "reaching") -> dict[tuple[str, str], Tensor]:
    """Return ``{(switch, label): rate}`` for every gate that a sample reached. Rates are scalars, with gradient in
    training.

    Let a_k mark the samples that pass gates 1 to k. Then the rate of gate k is Σa_k / Σa_{k−1} for ``reaching`` and
    Σa_k / N for ``all``. With ``reaching``, a gate that no sample reached is left out.

    Raises:
        ValueError: the value of ``over`` is unknown.
    """
    rates = rates_or_nan(trace, over)
    known = (~torch.stack([rate.detach() for rate in rates.values()]).isnan()).tolist() if rates else []
    return {gate: rate for (gate, rate), is_known in zip(rates.items(), known, strict=True) if is_known}


def rates_or_nan(trace: Trace, over: Over = "reaching") -> dict[tuple[str, str], Tensor]:
    """Return the rates of :func:`gate_rates`, but with NaN for a gate that no sample reached. This function does not
    wait for the device.

    Raises:
        ValueError: the value of ``over`` is unknown.
    """
    check("over", over, one_of(*get_args(Over)))
    rates = {(switch, label): _rate(reached, opened, over) for switch, label, reached, opened in trace.gates}
    return {gate: torch.where(count > 0.0, rate, torch.nan) for gate, (rate, count) in rates.items()}


class Watched:
    """A wrapper of a gated network that counts the samples that pass each gate. Call ``watched(x)`` for each batch."""

    def __init__(self, net: PathNet, over: Over = "reaching") -> None:
        self.net, self.over = net, over
        self.counts: dict[tuple[str, str], Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        trace = Trace()
        logits = self.net(x, trace=trace)
        for switch, label, reached, opened in trace.gates:
            total = reached.sum() if self.over == "reaching" else torch.full_like(reached.sum(), len(reached))
            pair = torch.stack([opened.sum(), total]).double()
            known = self.counts.get((switch, label))
            self.counts[switch, label] = pair if known is None else known + pair
        return logits

    def rates(self, world: World) -> dict[tuple[str, str], float]:
        """Return the rate of each gate over all batches of all ranks; NaN if no image reached the gate."""
        parts = world.gather({gate: pair.tolist() for gate, pair in self.counts.items()})
        found: dict[tuple[str, str], float] = {}
        for gate in dict.fromkeys(gate for part in parts for gate in part):
            passed, total = (sum(part[gate][i] for part in parts if gate in part) for i in range(2))
            found[gate] = passed / total if total else math.nan
        return found


def target_rate_loss(trace: Trace, target: float, over: Over = "reaching") -> Tensor:
    """Compute the mean of (target − rate)² over the gates that a sample reached, as a scalar.

    Raises:
        ValueError: the target is outside [0, 1], or there is no gate in the trace.
    """
    check("target", target, SHARE)
    check("over", over, one_of(*get_args(Over)))
    if not trace.gates:
        raise ValueError("target-rate loss: no gate has run; build the network with gates and run it dynamically")
    rates = [_rate(reached, opened, over) for _, _, reached, opened in trace.gates]
    off = torch.stack([(target - rate) ** 2 for rate, _ in rates])
    ran = torch.stack([count > 0.0 for _, count in rates]).to(off.dtype)
    return (off * ran).sum() / ran.sum().clamp(min=1.0)


def _rate(reached: Tensor, opened: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Return the rate of one gate, and the number of samples on which the rate is measured (if this is 0, the rate is
    meaningless)."""
    reached = at_least_float32(reached)
    count = reached.sum() if over == "reaching" else reached.new_tensor(float(len(reached)))
    return at_least_float32(opened).sum() / count.clamp(min=1.0), count.detach()
