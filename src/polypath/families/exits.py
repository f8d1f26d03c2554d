"""Exits: heads after stages, at which any network may stop (Lee et al. 2015; Huang et al. 2018, MSDNet).

An exit is a choice like any other. The network ends in the switch ``exits``, which selects a head after a stage or the
network's own head. For example, ``exit=2`` stops after the second stage. Each head consists of batch-norm, ReLU, global
average pool and a linear layer. :func:`polypath.core.reuse.in_turn` runs each stage once for all exits, so all exits
together cost little more than the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from polypath.core.builder import NetBuilder
from polypath.core.network import HEAD
from polypath.core.paths import Selectors
from polypath.core.wiring import Unit, Wiring

EXITS, END = "exits", "end"


def with_exits(b: NetBuilder, output: str, after: Sequence[int], num_classes: int, **options: int) -> str:
    """Add exits after the stages ``after`` (1-based) to a network that ends in ``output``; return the new output node.

    Args:
        options: ``min_size`` of the network.

    Raises:
        ValueError: the network has no stages or does not end in a classifier, a number in ``after`` is not a stage
            before the last one, or the numbers are not in ascending order.
    """
    net = b.net(output, **options)
    stages, head = net.stage_nodes, net.wiring.by_name.get(output)
    if len(stages) < 2 or not isinstance(head, Unit) or not head.name.startswith(HEAD):
        raise ValueError(
            f"exits = {tuple(after)}: must be empty, since exits require two stages in the wiring and a classifier at "
            f"its end; this wiring has {len(stages)} stages"
        )
    if unknown := [n for n in after if not 1 <= n < len(stages)]:
        raise ValueError(
            f"exits = {tuple(after)}: {unknown[0]} must be one of the stages 1 to {len(stages) - 1} "
            f"({', '.join(list(stages)[:-1])})"
        )
    if list(after) != sorted(set(after)):
        raise ValueError(f"exits = {tuple(after)}: must list each stage once, in ascending order")
    ends: dict[str, str] = {}
    rows = [[*stages.values()][n - 1] for n in after]
    for n, nodes, chans in zip(after, rows, net.channels_of([row[0] for row in rows]), strict=True):
        name = f"{HEAD}exit{n}"
        z = nodes[0] if len(nodes) == 1 else b.join(f"{name}.join", {str(i): z for i, z in enumerate(nodes, 1)})
        z = b.add(f"{name}.norm", z, nn.BatchNorm2d(chans))
        z = b.add(f"{name}.act", z, nn.ReLU())
        z = b.add(f"{name}.pool", z, nn.AdaptiveAvgPool2d(1))
        z = b.add(f"{name}.flatten", z, nn.Flatten())
        ends[f"stage{n}"] = b.add(f"{name}.classifier", z, nn.Linear(chans, num_classes), depth=head.depth)
    return b.join(EXITS, ends | {END: output}, kind="switch")


def exit_names(after: Sequence[int]) -> list[str]:
    """List the choices of the exits, as texts."""
    return [f"exit={n}" for n in after]


def exit_selectors(after: Sequence[int]) -> Selectors:
    """Return the selector ``exit`` of a network with exits, or no selectors if ``after`` is empty."""

    def chosen(wiring: Wiring, value: str) -> dict[str, list[str]]:
        join = wiring.joins.get(EXITS)
        left = [n for n in after if join is not None and f"stage{n}" in join.labels]
        if value not in map(str, left):
            legal = ", ".join(map(str, left)) or "none, since this network was extracted without exits"
            raise ValueError(f"exit = {value!r}: must be a stage with an exit; these stages are {legal}")
        return {EXITS: [f"stage{value}"]}

    return {"exit": chosen} if after else {}
