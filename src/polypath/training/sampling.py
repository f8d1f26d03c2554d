"""Drop-path: functions that draw which operands run in one training step, as a choice for ``net(x, paths=drawn)``.

The results depend only on the arguments, among them a ``torch.Generator`` on the CPU. The same state of the generator
gives the same choice on every machine and rank. The drawn choice is canonical (:meth:`Paths.of`): it does not contain
joins that are dead because of other drops. Operands of concatenations are never dropped. With ``switches``, one operand
of each switch is drawn uniformly; otherwise switches keep their default.

The methods are from these papers:

* FractalNet §3.1 "Regularization via Drop-path": local, global and mixed drop-path, with one draw per mini-batch.
* CrescendoNet §II-C: each branch of a block is dropped with the same probability, as in local drop-path.
* Huang et al. 2016: stochastic depth, with the survival probabilities of a wiring's operands.
* Yu and Huang 2019: the sandwich rule, for any choices of a network.
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
"""Drop probability: one number for all operands, or a mapping from the label of each operand to its probability."""


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
    """Drop each operand of each join with probability ``rate``, but keep at least one (FractalNet §3.1).

    If all operands of a join would be dropped, one of them is drawn uniformly and kept. With p = 0.3, a block of four
    branches loses 4p − p⁴ = 1.192 branches on average.

    Args:
        rate: the drop probability, or a mapping from the label of each operand to its drop probability, as in the code
            of FractalNet's authors.
        joins: names of the joins that drop operands; None for all joins of kind mean, sum and max.
        same: draw once, and keep operands with the same labels at every join.
        keep: a label that is never dropped.
        switches: also draw one operand of each switch.

    Raises:
        ValueError: a rate is outside [0, 1], an operand has no rate, a join is unknown or cannot drop operands, no join
            has the label ``keep``, or ``same`` is given but the joins have different labels.
    """
    drawn_at = _joins(wiring, joins)
    for one in rate.values() if isinstance(rate, Mapping) else (rate,):
        check("rate", one, SHARE)
    if isinstance(rate, Mapping) and (
        lacking := [label for join in drawn_at for label in join.labels if label not in rate]
    ):
        raise ValueError(f"rate: operand {lacking[0]!r} has no rate; give one rate for each label, or one for all")
    if keep is not None and not any(keep in join.labels for join in drawn_at):
        known = dict.fromkeys(label for join in drawn_at for label in join.labels)
        raise ValueError(f"keep = {keep!r}: no join has this operand; the operands are {', '.join(known)}")
    switched = _switched(wiring, generator) if switches else {}
    if not same:
        dropped = {join.name: survivors(join.labels, rate, generator, keep) for join in drawn_at}
        return Paths.of(wiring, dropped | switched)
    if len({join.labels for join in drawn_at}) > 1:
        raise ValueError("same = True: the joins have different operands, so they cannot keep the same set")
    kept = survivors(drawn_at[0].labels, rate, generator, keep) if drawn_at else ()
    return Paths.of(wiring, {join.name: kept for join in drawn_at} | switched)


def global_drop_path(net: PathNet, generator: Generator, columns: Sequence[Paths] | None = None) -> Paths:
    """Draw one column for the whole network, uniformly (FractalNet §3.1). To avoid repeated lookups, pass the result of
    :func:`columns_of` as ``columns``.

    Raises:
        ValueError: the network has no columns.
    """
    columns = columns_of(net) if columns is None else columns
    return columns[_uniform(len(columns), generator)]


def mixed_drop_path(
    net: PathNet, rate: Rate, share: float, generator: Generator, columns: Sequence[Paths] | None = None
) -> Paths:
    """Draw a global column with probability ``share``, else drop operands locally with ``rate`` (FractalNet §3.1, where
    ``share`` is 0.5).

    Raises:
        ValueError: a rate or share is outside [0, 1], or the network has no columns.
    """
    check("share", share, SHARE)
    if float(torch.rand((), generator=generator)) < share:
        return global_drop_path(net, generator, columns)
    return local_drop_path(net.wiring, rate, generator)


def one_column_a_block(net: PathNet, generator: Generator) -> Paths:
    """Draw one operand label for each block separately. This is *not* the global draw of the paper.

    Joins belong to the same block if their names are equal up to the last dot. Some re-implementations of FractalNet
    draw in this way. This function allows you to measure the effect.
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
    """Draw as :func:`mixed_drop_path`, but with :func:`one_column_a_block` in place of the global draw. This is not in
    the paper either.

    Raises:
        ValueError: a rate or share is outside [0, 1].
    """
    check("share", share, SHARE)
    if float(torch.rand((), generator=generator)) < share:
        return one_column_a_block(net, generator)
    return local_drop_path(net.wiring, rate, generator)


def uniform_choice(
    wiring: Wiring, generator: Generator, joins: Iterable[str] | None = None, *, switches: bool = False
) -> Paths:
    """Draw a non-empty set of operands at each join, where all sets are equally likely. With ``switches``, also draw
    one operand of each switch.

    Raises:
        ValueError: a join is unknown or cannot drop operands.
    """
    choice = {}
    for join in _joins(wiring, joins):
        kept: tuple[str, ...] = ()
        while not kept:  # no operand is kept with probability 2^-n
            kept = _where(join.labels, torch.randint(0, 2, (len(join.labels),), generator=generator))
        choice[join.name] = kept
    return Paths.of(wiring, choice | (_switched(wiring, generator) if switches else {}))


def sandwich(ordered: Sequence[Paths], draws: int, generator: Generator) -> list[Paths]:
    """Return the paths that learn in one step in addition to the whole network (Yu and Huang 2019).

    These are the first path of ``ordered``, which must be the cheapest, and ``draws`` of the other paths, drawn
    uniformly without replacement. If there are fewer other paths, return all of them.
    """
    drawn = torch.randperm(max(0, len(ordered) - 1), generator=generator)[:draws]
    return [*ordered[:1], *(ordered[1 + i] for i in drawn.tolist())]


def joined(ordered: Sequence[Paths], epoch: int, epochs: int, *, cheapest_first: bool, until: float) -> list[Paths]:
    """Return the paths of a curriculum that learn in ``epoch`` (counted from 0), the cheapest first, as in ``ordered``.

    The whole network starts alone. The other paths join one by one, at even intervals. After the share ``until`` of the
    epochs, all have joined. With ``cheapest_first`` the cheapest path joins first. Otherwise the most expensive path
    joins first, as in the progressive shrinking of "once for all" (Cai et al. 2020, §3.3).
    """
    count = len(ordered)
    there = count if until == 0 else min(count, int((count + 1) * epoch / (until * epochs) + 1e-9))
    return list(ordered[:there] if cheapest_first else ordered[count - there :])


def shallowest(wiring: Wiring) -> Paths:
    """Return the choice with the fewest layers: one operand at each join and switch. Each unit states how many layers
    it counts for."""
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
    """Split a batch into ``groups`` parts of nearly equal size, and run each part with a separately drawn choice.
    Return the logits ``(N, classes)`` and the choices.

    With ``groups = N``, a choice is drawn for every image. In training, batch-norm normalises over each part, so a part
    of one image needs feature maps larger than 1×1.

    Raises:
        ValueError: ``groups`` is 0 or larger than the number of images.
    """
    check("groups", groups, whole(1, len(x)))
    drawn = [draw() for _ in range(groups)]
    parts = x.tensor_split(groups)
    return torch.cat([net(part, paths=paths) for part, paths in zip(parts, drawn, strict=True)]), drawn


def columns_of(net: PathNet) -> list[Paths]:
    """Return one path for each column that the network still has, see :meth:`PathNet.path_set`.

    Raises:
        ValueError: the network has no columns.
    """
    found = list(net.path_set("columns").values())
    if not found:
        family = net.config.get("family", "this network")
        raise ValueError(f"global drop-path draws a column, but {family} has none; use local drop-path")
    return found


def rates_by_label(wiring: Wiring, rate: float, rates: Sequence[float]) -> Rate:
    """Return ``rate`` if ``rates`` is empty, else a mapping from the label of each operand to its rate. ``rates`` must
    be in the order of the operands of the join with the most operands.

    Raises:
        ValueError: the number of rates differs from the number of operands of that join.
    """
    if not rates:
        return rate
    labels = max((join.labels for join in _joins(wiring, None)), key=len, default=())
    if len(rates) != len(labels):
        raise ValueError(
            f"rates = {tuple(rates)}: must have length {len(labels)}, one rate for each of {', '.join(labels)}"
        )
    return dict(zip(labels, rates, strict=True))


def survivors(labels: Sequence[str], rate: Rate, generator: Generator, keep: str | None = None) -> tuple[str, ...]:
    """Drop each label with probability ``rate``, but never the label ``keep``, and return the labels that remain. If
    all labels are dropped, return one label that is drawn uniformly."""
    each = torch.tensor([rate[label] for label in labels]) if isinstance(rate, Mapping) else rate
    alive = torch.rand(len(labels), generator=generator) >= each
    kept = tuple(label for label, on in zip(labels, alive.tolist(), strict=True) if on or label == keep)
    return kept or (labels[_uniform(len(labels), generator)],)


def _joins(wiring: Wiring, names: Iterable[str] | None) -> list[Join]:
    if names is None:
        return [join for join in wiring.joins.values() if join.kind in SELECTABLE]
    names, legal = list(names), [join.name for join in wiring.joins.values() if join.kind in SELECTABLE]
    if unknown := [name for name in names if name not in legal]:
        raise ValueError(
            f"joins: {unknown[0]!r} cannot drop operands; joins that can drop operands: {', '.join(legal) or 'none'}"
        )
    return [wiring.joins[name] for name in names]


def _switched(wiring: Wiring, generator: Generator) -> dict[str, tuple[str, ...]]:
    switches = [join for join in wiring.joins.values() if join.kind == "switch"]
    return {join.name: (join.labels[_uniform(len(join.labels), generator)],) for join in switches}


def _where(labels: Sequence[str], mask: Tensor) -> tuple[str, ...]:
    return tuple(label for label, on in zip(labels, mask.tolist(), strict=True) if on)


def _uniform(n: int, generator: Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
