"""Effects of the gates of a dynamic recursive network: the MACs that are spent (DRNN Tables 1 and 2), and the feature
maps of images that a gate passes or stops (Fig. 7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polypath.core.execute import Trace
from polypath.core.network import PathNet
from polypath.core.plan import loops_of
from polypath.profiling.cost import macs_by_node


def mean_macs(net: PathNet, passed: Mapping[tuple[str, str], float], size: int) -> float:
    """Compute the mean multiply-adds for an image with sides of ``size`` pixels, gates included. Unlike
    :func:`polypath.profiling.expected.expected_macs`, it uses measured shares: ``passed`` contains for each ``(switch,
    loop)`` the share of all images that pass the gate."""
    shares: dict[str, float] = {}
    for switch in net.wiring.joins.values():
        reached = 1.0
        for loop in loops_of(net.wiring, switch) if switch.gates else ():
            share = passed.get((switch.name, loop.label), reached)
            shares.update(dict.fromkeys(loop.nodes, share))
            if loop.gate is not None:
                shares[f"{switch.name}:{loop.label}"] = reached
            reached = share
    return sum(macs * shares.get(name, 1.0) for name, macs in macs_by_node(net, None, size).items())


@dataclass(frozen=True, kw_only=True, eq=False)
class PassedStopped:
    """Statistics of the feature maps before a block's first norm, for the images that the first gate passes and for
    those that it stops.

    Attributes:
        mean_passed, var_passed, mean_stopped, var_stopped: means and variances of each channel ``(C,)``, over images
            and positions.
        passed, stopped: the number of images of each kind.
    """

    mean_passed: Tensor
    var_passed: Tensor
    mean_stopped: Tensor
    var_stopped: Tensor
    passed: int
    stopped: int

    @property
    def discrepancy(self) -> float:
        """The distance between the two means in standard deviations (of the mean variance), averaged over channels."""
        deviation = ((self.var_passed + self.var_stopped) / 2).clamp(min=1e-12).sqrt()
        return float(((self.mean_passed - self.mean_stopped).abs() / deviation).mean())


@torch.inference_mode()
def passed_and_stopped(net: PathNet, batches: Iterable[Sequence[Tensor]], least: int = 2) -> dict[str, PassedStopped]:
    """Compute statistics of the images that the gate before each block's first loop passes and stops, by block
    (``group3.block2``).

    The statistics are those of the output of the block's first conv, which is computed for stopped images, too. Blocks
    whose gate passes or stops fewer than ``least`` images are left out. The network is put in evaluation mode.

    Raises:
        ValueError: no block has a gate before its first loop.
    """
    gates = {s.name: s.gates[0] for s in net.wiring.joins.values() if s.gates and s.gates[0].opens == s.labels[1]}
    if not gates:
        raise ValueError("this network has no gate before the first loop of any block")
    net.eval()
    sums: dict[tuple[str, bool], tuple[Tensor, Tensor, int]] = {}
    images: dict[tuple[str, bool], int] = defaultdict(int)
    for x, *_ in batches:
        trace = Trace(frozenset(gate.source for gate in gates.values()))
        net(x, trace=trace)
        opened = {(switch, label): of for switch, label, _, of in trace.gates}
        for switch, gate in gates.items():
            block = switch.removesuffix(".loops")
            maps = net.get_submodule(f"{block}.unit1.conv")(trace.values[gate.source]).double()
            decided = opened[switch, gate.opens] > 0
            for passed in (True, False):
                rows = maps[decided == passed].transpose(0, 1).flatten(1)  # (C, n·H·W)
                old = sums.get((block, passed), (0.0, 0.0, 0))
                sums[block, passed] = (
                    old[0] + rows.sum(1).cpu(), old[1] + rows.square().sum(1).cpu(), old[2] + rows.shape[1]
                )  # fmt: skip
                images[block, passed] += int((decided == passed).sum())
    return {
        block: _both(sums[block, True], sums[block, False], images[block, True], images[block, False])
        for block in dict.fromkeys(block for block, _ in sums)
        if min(images[block, True], images[block, False]) >= least
    }


def _both(
    passed: tuple[Tensor, Tensor, int], stopped: tuple[Tensor, Tensor, int], count: int, rest: int
) -> PassedStopped:
    (mean1, var1), (mean0, var0) = _moments(*passed), _moments(*stopped)
    return PassedStopped(
        mean_passed=mean1, var_passed=var1, mean_stopped=mean0, var_stopped=var0, passed=count, stopped=rest
    )


def _moments(one: Tensor, two: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mean = one / count
    return mean, (two / count - mean.square()).clamp(min=0.0)
