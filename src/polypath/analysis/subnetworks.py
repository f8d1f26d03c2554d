"""Sub-network tables: the error and the cost of each named or sampled path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from polypath.analysis.answers import chosen_paths
from polypath.analysis.scoring import score
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import check, whole
from polypath.core.choices import below
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate
from polypath.core.wiring import INPUT, WHOLE, Choice, Unit, Wiring
from polypath.profiling.cost import Size, costs


def subnetwork_table(
    net: PathNet,
    paths: Mapping[str, Paths] | Iterable[str] | None,
    batches: Iterable[Sequence[Tensor]],
    *,
    train: Iterable[Sequence[Tensor]] | None = None,
    num_images: int = 2000,
    stats: BatchNormStatistics | None = None,
    size: Size = 32,
    views: int = 1,
) -> pd.DataFrame:
    """Measure error and cost of each of ``paths`` (None: the named paths).

    If ``train`` is given, batch-norm is recalibrated on ``num_images`` of its images, which must be in random order.
    Statistics from an earlier recalibration can be passed as ``stats`` instead. In both cases, ``batches`` must be
    iterable more than once.

    Returns:
        A row for each path: ``path``, ``paths`` (canonical text), ``error`` (%), ``error_recalibrated`` (%, or None),
        ``change`` (points above the first row's error; of recalibrated errors if they were measured), ``depth``,
        ``params``, ``macs``, ``images``.

    Raises:
        ValueError: a path is illegal, there are no images, a label is not a class of the network, or ``stats`` lacks
            a path.
    """
    chosen = chosen_paths(net, paths)
    if stats is None and train is not None:
        stats = recalibrate(net, chosen.values(), train, num_images)
    plain, spent = score(net, chosen, batches, views=views), costs(net, chosen, size)
    better = score(net, chosen, batches, stats=stats, views=views) if stats is not None else None
    rows = [
        {
            "path": name,
            "paths": str(p),
            "error": plain[name].error,
            "error_recalibrated": better[name].error if better else None,
            "depth": net.wiring.longest(p),
            "params": spent[name].params,
            "macs": spent[name].macs,
            "images": plain[name].images,
        }
        for name, p in chosen.items()
    ]
    frame = pd.DataFrame(rows)
    best = frame["error_recalibrated"].fillna(frame["error"]) if better else frame["error"]
    frame.insert(4, "change", best - best.iloc[0])
    return frame


def sampled_paths(net: PathNet | Wiring, count: int, generator: torch.Generator) -> dict[str, Paths]:
    """Draw ``count`` different chains at random, uniformly among all chains of the wiring. Return them by their text.

    A chain is drawn backwards from the output: at each join, an operand is drawn with probability proportional to the
    number of chains that lead to it. If the wiring has at most ``count`` chains, all are returned. Otherwise, at most
    100 · ``count`` draws are made, so the result may have fewer chains.

    Raises:
        ValueError: ``count`` is below 1, or the network has a concatenation, whose operands cannot be chosen.
    """
    check("count", count, whole(1))
    wiring = net if isinstance(net, Wiring) else net.wiring
    at, found = paths_to(wiring), {}
    if at[wiring.output] <= count:
        drawn: Iterable[Paths] = (Paths.along(wiring, chain) for chain in wiring.routes())
    else:
        drawn = (_drawn(wiring, at, generator) for _ in range(100 * count))
    for p in drawn:
        found[str(p)] = p
        if len(found) == count:
            break
    return found


def paths_to(wiring: Wiring, choice: Choice = WHOLE) -> dict[str, int]:
    """Return the exact number of chains from the input to each node of the wiring."""
    at = {INPUT: 1}
    for node in wiring.nodes:
        if isinstance(node, Unit):
            at[node.name] = at[node.source]
        else:
            operands = node.chosen(choice) if node.name in choice else node.operands
            at[node.name] = sum(at[o.source] for o in operands)
    return at


def _drawn(wiring: Wiring, at: Mapping[str, int], generator: torch.Generator) -> Paths:
    taken, name = {}, wiring.output
    while name != INPUT:
        node = wiring.by_name[name]
        if isinstance(node, Unit):
            name = node.source
            continue
        ticket = below(at[name], generator)
        for operand in node.operands:
            ticket -= at[operand.source]
            if ticket < 0:
                taken[node.name], name = (operand.label,), operand.source
                break
    return Paths.of(wiring, taken)
