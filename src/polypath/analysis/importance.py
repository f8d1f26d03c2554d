"""Importance of operands: how much a network's error increases when one operand is dropped and the others stay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from torch import Tensor

from polypath.analysis.answers import Logits, answers, error_of, right, stacked
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.wiring import Wiring

DROPPABLE = ("mean", "sum", "max")
WHOLE = "whole"


def without_each(wiring: Wiring, base: Paths | None = None, joins: Iterable[str] | None = None) -> dict[str, Paths]:
    """Return, by ``join:label``, choices that each drop one operand of a join that is alive under ``base``.

    ``joins`` are the joins to consider; None means all mean, sum and max joins with at least two operands.

    Raises:
        ValueError: a join is unknown or dead, or its operands cannot be dropped.
    """
    base = Paths.of(wiring, base or {})
    alive = {node.name: node for node in wiring.alive(base) if node.name in wiring.joins}
    many = [n for n in alive if wiring.joins[n].kind in DROPPABLE and len(wiring.joins[n].chosen(base)) > 1]
    names = many if joins is None else list(joins)
    found = {}
    for name in names:
        if name not in many:
            raise ValueError(
                f"join {name!r}: none of its operands can be dropped; must be one of the joins {', '.join(many)}"
            )
        labels = [o.label for o in wiring.joins[name].chosen(base)]
        for label in labels:
            found[f"{name}:{label}"] = Paths.of(wiring, {**base, name: tuple(k for k in labels if k != label)})
    return found


def without_label(wiring: Wiring, base: Paths | None = None) -> dict[str, Paths]:
    """Return, by ``*:label``, choices that each drop all operands with one label, such as branch 2 of every block.
    Labels of only one join are left out. A join with no other operand keeps its operand."""
    base, found = Paths.of(wiring, base or {}), {}
    joins = [j for j in wiring.joins.values() if j.kind in DROPPABLE]
    for label in dict.fromkeys(label for join in joins for label in join.labels):
        changed = {}
        for join in joins:
            kept = tuple(o.label for o in join.chosen(base) if o.label != label)
            if kept and label in join.labels:
                changed[join.name] = kept
        if len(changed) > 1:
            found[f"*:{label}"] = Paths.of(wiring, {**base, **changed})
    return {name: choice for name, choice in found.items() if choice != base}


def importance(whole: Tensor, without: Logits, labels: Tensor) -> pd.DataFrame:
    """Measure the effect of dropping each part, from the logits ``(images, classes)`` with and without the part.

    Returns:
        A row for each part: ``dropped`` (its name), ``error`` (%) without the part, ``increase`` (points above the
        whole network's error) and ``standard_error`` of the increase (over images, paired). In percent of the images:
        ``changed`` (another prediction), ``broken`` (correct before, now wrong) and ``mended`` (wrong before, now
        correct).

    Raises:
        ValueError: the logits or labels are illegal, see :func:`~polypath.analysis.answers.stacked`.
    """
    names, z = stacked({WHOLE: whole, **{f"-{name}": of for name, of in without.items()}}, labels)
    given, labels = z.argmax(2), labels.cpu()
    before, rows = given[0] == labels, []
    for name, now in zip(names[1:], given[1:], strict=True):
        hits = now == labels
        lost = before.double() - hits.double()
        rows.append(
            {
                "dropped": name[1:],
                "error": error_of(hits),
                "increase": 100.0 * float(lost.mean()),
                "standard_error": 100.0 * float(lost.std(unbiased=False)) / math.sqrt(len(labels)),
                "changed": error_of(now == given[0]),
                "broken": 100.0 * float((before & ~hits).double().mean()),
                "mended": 100.0 * float((~before & hits).double().mean()),
            }
        )
    frame = pd.DataFrame(rows)
    frame.attrs["images"] = len(labels)
    return frame


def importance_table(
    net: PathNet,
    batches: Iterable[Sequence[Tensor]],
    parts: Mapping[str, Paths] | None = None,
    *,
    base: Paths | str | None = None,
    stats: BatchNormStatistics | None = None,
    views: int = 1,
) -> pd.DataFrame:
    """Compute the :func:`importance` of parts of the network that runs under ``base`` (None: the whole network).
    ``parts`` are choices that each drop something (None: those of :func:`without_each`). If ``stats`` is given, it must
    cover ``base`` and all these choices.

    Raises:
        ValueError: no operand can be dropped, there are no images, a label is not a class of the network, or ``stats``
            lacks a choice.
    """
    start = net.paths(base)
    parts = without_each(net.wiring, start) if parts is None else parts
    if not parts:
        raise ValueError("this network has no join whose operands can be dropped")
    found = answers(net, {WHOLE: start, **{f"-{k}": p for k, p in parts.items()}}, batches, stats=stats, views=views)
    whole = found.logits.pop(WHOLE)
    return importance(whole, {name[1:]: of for name, of in found.logits.items()}, found.labels)


def unique_to(logits: Logits, labels: Tensor) -> pd.DataFrame:
    """Count the images that only one path classifies correctly. Return a row for each path: ``path``, ``error`` (%),
    ``only_right`` (% of images that only this path classifies correctly).

    Raises:
        ValueError: the logits or labels are illegal, see :func:`~polypath.analysis.answers.stacked`.
    """
    names, hits = right(logits, labels)
    alone = hits & (hits.sum(0) == 1)
    rows = [
        {"path": n, "error": error_of(hits[i]), "only_right": 100.0 * float(alone[i].double().mean())}
        for i, n in enumerate(names)
    ]
    return pd.DataFrame(rows)
