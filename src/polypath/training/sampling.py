"""Drop-path: draw the operands that run in one training step, as a choice for ``net(x, paths=drawn)``.

Each function is a pure function of its arguments and an explicit ``torch.Generator`` on the CPU; the same generator
state gives the same choice on every machine and rank. The drawn choice is canonical (:meth:`Paths.of`): it leaves out
joins that are dead because of a drop elsewhere. Operands of concatenations are never dropped. For switches, one
operand each is drawn uniformly, but only with ``switches``.

FractalNet §3.1 "Regularization via Drop-path": local, global and mixed, drawn once per mini-batch.
CrescendoNet §II-C: each branch of a block is dropped with a rate, as in the local form.
Huang et al. 2016: stochastic depth, with the survival probabilities of a wiring's operands.
Yu and Huang 2019: the sandwich rule, for any choices of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Generator, Tensor

from polypath.core.checks import SHARE, check, whole
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.stochastic_depth import stochastic_depth as stochastic_depth
from polypath.core.wiring import INPUT, Join, Wiring

SELECTABLE = ("mean", "sum", "max")
Rate = float | Mapping[str, float]
"""Drop probability: one for all operands, or one for each operand by its label."""


def local_drop_path(
    wiring: Wiring,
    rate: Rate,
    generator: Generator,
    joins: Iterable[str] | None = None,
    *,
    same: bool = False,
    keep: str | None = None,
    switches: bool = False,
) -> Paths:
    """Drop each operand of each join with probability ``rate``; at least one survives (FractalNet §3.1).

    If all would be dropped, one is chosen uniformly and kept. With p = 0.3 a block of four branches loses
    4p − p⁴ = 1.192 branches on average.

    Args:
        rate: the probability, or one for each operand by its label, as in the code of FractalNet's authors.
        joins: names of the joins to draw at; None for all means, sums and maxima.
        same: draw once and keep the same labels at every join.
        keep: a label that is never dropped.
        switches: also draw one operand of each switch.

    Raises:
        ValueError: a rate outside [0, 1], an operand without a rate, an unknown join or one without a choice, a label
            to keep that no join has, ``same`` with joins of different labels.
    """
    drawn_at = _joins(wiring, joins)
    for one in rate.values() if isinstance(rate, Mapping) else (rate,):
        check("rate", one, SHARE)
    if isinstance(rate, Mapping) and (
        lacking := [label for join in drawn_at for label in join.labels if label not in rate]
    ):
        raise ValueError(f"rate: operand {lacking[0]!r} has none; give one for each label, or one for all")
    if keep is not None and not any(keep in join.labels for join in drawn_at):
        known = dict.fromkeys(label for join in drawn_at for label in join.labels)
        raise ValueError(f"keep = {keep!r}: no join has this operand; there are {', '.join(known)}")
    switched = _switched(wiring, generator) if switches else {}
    if not same:
        dropped = {join.name: survivors(join.labels, rate, generator, keep) for join in drawn_at}
        return Paths.of(wiring, dropped | switched)
    if len({join.labels for join in drawn_at}) > 1:
        raise ValueError("same = True: the joins have different operands, so they cannot keep the same set")
    kept = survivors(drawn_at[0].labels, rate, generator, keep) if drawn_at else ()
    return Paths.of(wiring, {join.name: kept for join in drawn_at} | switched)


def global_drop_path(net: PathNet, generator: Generator, columns: Sequence[Paths] | None = None) -> Paths:
    """Draw one column for the whole network, uniformly (FractalNet §3.1); ``columns`` avoids repeated lookups.

    Raises:
        ValueError: a network without columns.
    """
    columns = columns_of(net) if columns is None else columns
    return columns[_uniform(len(columns), generator)]


def mixed_drop_path(
    net: PathNet, rate: Rate, share: float, generator: Generator, columns: Sequence[Paths] | None = None
) -> Paths:
    """A global draw with probability ``share``, else a local one with ``rate`` (FractalNet §3.1: ``share`` 0.5).

    Raises:
        ValueError: a rate or share outside [0, 1], a network without columns.
    """
    check("share", share, SHARE)
    if float(torch.rand((), generator=generator)) < share:
        return global_drop_path(net, generator, columns)
    return local_drop_path(net.wiring, rate, generator)


def one_column_a_block(net: PathNet, generator: Generator) -> Paths:
    """Draw one operand label for each block separately: *not* the global draw of the paper.

    A block is the joins whose names are the same before the last dot. Some re-implementations of FractalNet sample in
    this way; the option allows measuring its effect.
    """
    blocks: dict[str, list[Join]] = {}
    for join in _joins(net.wiring, None):
        blocks.setdefault(join.name.rpartition(".")[0], []).append(join)
    choice: dict[str, tuple[str, ...]] = {}
    for joins in blocks.values():
        labels = max((join.labels for join in joins), key=len)
        label = labels[_uniform(len(labels), generator)]
        choice.update({join.name: (label,) for join in joins if label in join.labels})
    return Paths.of(net.wiring, choice)


def mixed_column_a_block(net: PathNet, rate: Rate, share: float, generator: Generator) -> Paths:
    """:func:`mixed_drop_path` with :func:`one_column_a_block` in place of the global draw; also not in the paper.

    Raises:
        ValueError: a rate or share outside [0, 1].
    """
    check("share", share, SHARE)
    if float(torch.rand((), generator=generator)) < share:
        return one_column_a_block(net, generator)
    return local_drop_path(net.wiring, rate, generator)


def uniform_choice(
    wiring: Wiring, generator: Generator, joins: Iterable[str] | None = None, *, switches: bool = False
) -> Paths:
    """Draw a non-empty set of operands at each join, all sets equally likely; with ``switches`` also one operand of
    each switch.

    Raises:
        ValueError: an unknown join, or one without a choice.
    """
    choice = {}
    for join in _joins(wiring, joins):
        kept: tuple[str, ...] = ()
        while not kept:  # fails with probability 2^-n
            kept = _where(join.labels, torch.randint(0, 2, (len(join.labels),), generator=generator))
        choice[join.name] = kept
    return Paths.of(wiring, choice | (_switched(wiring, generator) if switches else {}))


def sandwich(ordered: Sequence[Paths], draws: int, generator: Generator) -> list[Paths]:
    """The paths that learn beside the whole network in one step: the first of ``ordered``, which is the cheapest, and
    ``draws`` others, drawn uniformly without replacement (all of them if there are fewer). Yu and Huang 2019.
    """
    drawn = torch.randperm(max(0, len(ordered) - 1), generator=generator)[:draws]
    return [*ordered[:1], *(ordered[1 + i] for i in drawn.tolist())]


def joined(ordered: Sequence[Paths], epoch: int, epochs: int, *, cheapest_first: bool, until: float) -> list[Paths]:
    """The paths of a curriculum that take part in ``epoch`` (from 0), the cheapest first, as in ``ordered``.

    The whole network starts alone. The others join one by one at even intervals, and all have joined after the share
    ``until`` of the epochs. With ``cheapest_first`` the cheapest path joins first; otherwise the paths join from the
    most expensive to the cheapest, as in the progressive shrinking of "once for all" (Cai et al. 2020, §3.3).
    """
    count = len(ordered)
    there = count if until == 0 else min(count, int((count + 1) * epoch / (until * epochs) + 1e-9))
    return list(ordered[:there] if cheapest_first else ordered[count - there :])


def shallowest(wiring: Wiring) -> Paths:
    """The choice of one operand at each join and switch with the fewest layers, as the units declare them."""
    depth, choice = {INPUT: 0}, dict[str, tuple[str, ...]]()
    for node in wiring.nodes:
        if not isinstance(node, Join):
            depth[node.name] = depth[node.source] + node.depth
        elif node.kind == "concat":
            depth[node.name] = max(depth[source] for source in node.sources)
        else:
            least = min(node.operands, key=lambda operand: depth[operand.source])
            depth[node.name], choice[node.name] = depth[least.source], (least.label,)
    return Paths.of(wiring, choice)


def in_groups(net: PathNet, x: Tensor, groups: int, draw: Callable[[], Paths]) -> tuple[Tensor, list[Paths]]:
    """Logits ``(N, classes)`` of a batch split into ``groups`` even parts, each with its own choice, and the choices.

    ``groups = N`` draws for every sample. In training, batch-norm normalises over each part, so parts of one image need
    feature maps larger than 1×1.

    Raises:
        ValueError: fewer images than groups, or no group.
    """
    check("groups", groups, whole(1, len(x)))
    drawn = [draw() for _ in range(groups)]
    parts = x.tensor_split(groups)
    return torch.cat([net(part, paths=paths) for part, paths in zip(parts, drawn, strict=True)]), drawn


def columns_of(net: PathNet) -> list[Paths]:
    """The network's remaining columns, one path each; see :meth:`PathNet.path_set`.

    Raises:
        ValueError: a network without columns.
    """
    found = list(net.path_set("columns").values())
    if not found:
        family = net.config.get("family", "this network")
        raise ValueError(f"global drop-path draws a column, but {family} has none; use local drop-path")
    return found


def rates_by_label(wiring: Wiring, rate: float, rates: Sequence[float]) -> Rate:
    """``rate`` if ``rates`` is empty, else a rate for each operand by its label: ``rates`` are in the order of the join
    with the most operands.

    Raises:
        ValueError: more or fewer rates than that join has operands.
    """
    if not rates:
        return rate
    labels = max((join.labels for join in _joins(wiring, None)), key=len, default=())
    if len(rates) != len(labels):
        raise ValueError(f"rates = {tuple(rates)}: give {len(labels)}, one for each of {', '.join(labels)}")
    return dict(zip(labels, rates, strict=True))


def survivors(labels: Sequence[str], rate: Rate, generator: Generator, keep: str | None = None) -> tuple[str, ...]:
    """The labels that survive a drop with probability ``rate``: always ``keep``, and at least one, drawn at random."""
    each = torch.tensor([rate[label] for label in labels]) if isinstance(rate, Mapping) else rate
    alive = torch.rand(len(labels), generator=generator) >= each
    kept = tuple(label for label, on in zip(labels, alive.tolist(), strict=True) if on or label == keep)
    return kept or (labels[_uniform(len(labels), generator)],)


def _joins(wiring: Wiring, names: Iterable[str] | None) -> list[Join]:
    if names is None:
        return [join for join in wiring.joins.values() if join.kind in SELECTABLE]
    names, legal = list(names), [join.name for join in wiring.joins.values() if join.kind in SELECTABLE]
    if unknown := [name for name in names if name not in legal]:
        raise ValueError(f"joins: {unknown[0]!r} is not a join to draw at; these are {', '.join(legal) or 'none'}")
    return [wiring.joins[name] for name in names]


def _switched(wiring: Wiring, generator: Generator) -> dict[str, tuple[str, ...]]:
    switches = [join for join in wiring.joins.values() if join.kind == "switch"]
    return {join.name: (join.labels[_uniform(len(join.labels), generator)],) for join in switches}


def _where(labels: Sequence[str], mask: Tensor) -> tuple[str, ...]:
    return tuple(label for label, on in zip(labels, mask.tolist(), strict=True) if on)


def _uniform(n: int, generator: Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
