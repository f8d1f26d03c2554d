"""Computes the average number of loops and multiply-adds per sample if all gates meet their target rate t (DRNN
§4.2)."""

from __future__ import annotations

from typing import get_args

from polypath.core.checks import SHARE, check, one_of
from polypath.core.gating import Over
from polypath.core.network import PathNet
from polypath.core.plan import loops_of
from polypath.core.wiring import Wiring
from polypath.profiling.cost import macs_by_node


def loop_shares(wiring: Wiring, target: float, over: Over = "reaching") -> dict[tuple[str, str], float]:
    """Return ``{(switch, label): share}``: the share of samples that run each loop of the gated switches, if all gates
    meet their target rate.

    If the target rate t applies to the samples ``reaching`` a gate, a share t^k runs the loop behind k gates. If the
    rate applies to ``all`` samples, this share is t.

    Raises:
        ValueError: the target is outside [0, 1], the value of ``over`` is unknown, or the wiring has no gates.
    """
    check("target", target, SHARE)
    check("over", over, one_of(*get_args(Over)))
    shares = {}
    for switch in wiring.joins.values():
        share, gated = 1.0, {gate.opens for gate in switch.gates}
        for label in switch.labels[1:] if gated else ():
            if label in gated:
                share = target * (share if over == "reaching" else 1.0)
            shares[switch.name, label] = share
    if not shares:
        raise ValueError("this network has no gates, so there are no expected loops")
    return shares


def expected_loops(net: PathNet | Wiring, target: float, over: Over = "reaching") -> float:
    """Return the average number of loops per sample over all gated switches, if all gates meet their target rate.

    For DR-ResNet-53 at t = 0.7 this number is 7·(t + t² + t³) + (t + t²) = 11.921 of 23 loops (Fig. 8).

    Raises:
        ValueError: as for :func:`loop_shares`.
    """
    return sum(loop_shares(_wiring(net), target, over).values())


def node_shares(net: PathNet | Wiring, target: float, over: Over = "reaching") -> dict[str, float]:
    """Return ``{node: share}``: the share of samples that run each node of the whole network. The share is 1 outside
    the loops. The key of a gate is ``switch:label``. The sum of the nodes' MACs, weighted by these shares, is the
    expected number of MACs.

    Raises:
        ValueError: as for :func:`loop_shares`.
    """
    wiring = _wiring(net)
    runs = loop_shares(wiring, target, over)
    shares = {node.name: 1.0 for node in wiring.alive()}
    for switch in wiring.joins.values():
        reached = 1.0
        for loop in loops_of(wiring, switch) if switch.gates else ():
            share = runs[switch.name, loop.label]
            shares.update(dict.fromkeys(loop.nodes, share))
            if loop.gate is not None:
                shares[f"{switch.name}:{loop.label}"] = reached
            reached = share
    return shares


def expected_macs(net: PathNet, target: float, size: int = 32, over: Over = "reaching") -> float:
    """Return the average multiply-adds for one image of ``size`` pixels, gates included, if all gates meet their target
    rate.

    Raises:
        ValueError: as for :func:`loop_shares`.
    """
    shares = node_shares(net, target, over)
    return sum(macs * shares[name] for name, macs in macs_by_node(net, None, size).items())


def _wiring(net: PathNet | Wiring) -> Wiring:
    return net if isinstance(net, Wiring) else net.wiring
