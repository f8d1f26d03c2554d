"""Stages: the points at which a backbone returns its maps, one for each resolution. This module does not use torch.

A stage has a name and one or more end nodes. Its value is the mean over the end nodes that are alive under a choice.
Most stages have one end node, which all paths go through. A merge-and-run network has one for each stream.

Every path goes through an end node of each stage, so the network has all stages under every choice. Extraction keeps
the stages' names. Only a path that ends early at an exit lacks the stages after the exit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from polypath.core.checks import did_you_mean, plain
from polypath.core.nodes import INPUT, WHOLE, Choice, Unit
from polypath.core.wiring import Wiring

Stages = Mapping[str, Sequence[str]]
Indices = int | Sequence[int] | None


def check_stages(wiring: Wiring, stages: Stages) -> dict[str, tuple[str, ...]]:
    """Check stages, and copy them to a dict of tuples.

    Raises:
        ValueError: an unknown node, a stage that some path bypasses, a stage that ends before the previous one.
    """
    place = {INPUT: -1, **{node.name: i for i, node in enumerate(wiring.nodes)}}
    reached = -1
    for stage, nodes in stages.items():
        if unknown := [name for name in nodes if name not in place]:
            raise ValueError(
                f"stage {stage!r}: this wiring has no node {unknown[0]!r}; {did_you_mean(unknown[0], place)}"
            )
        first = min((place[name] for name in nodes), default=reached)
        if first < reached:
            raise ValueError(
                f"stage {stage!r} ends before the previous stage: list the stages in order, from input to output"
            )
        reached = first
    rows = list(stages.values())
    for i, (stage, nodes) in enumerate(stages.items()):
        if _bypassed(wiring, nodes, [node for row in rows[i + 1 :] for node in row]):
            raise ValueError(
                f"stage {stage!r}: some paths do not go through {' or '.join(nodes) or 'any node'}, so they would have "
                "no value for this stage; give a node that all paths share, or one node of every parallel branch"
            )
    return {stage: tuple(nodes) for stage, nodes in stages.items()}


def pruned_stages(wiring: Wiring, stages: Stages, choice: Choice) -> dict[str, tuple[str, ...]]:
    """Return the stages that remain in ``wiring.prune(choice)``, under the same names."""
    alive = {INPUT, *(node.name for node in wiring.alive(choice))}
    now = wiring.collapsed(choice)
    left = {stage: tuple(now.get(name, name) for name in nodes if name in alive) for stage, nodes in stages.items()}
    return {stage: nodes for stage, nodes in left.items() if nodes}


def chosen_indices(indices: Indices, count: int) -> list[int]:
    """Return the indices of the requested stages, in ascending order; ``count`` is the number of stages.

    ``indices`` may be None (all stages), a number n (the last n) or a list, in which -1 is the last stage.

    Raises:
        ValueError: an index that no stage has.
    """
    given = plain(indices)
    if given is None:
        return list(range(count))
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= count:
        return list(range(count - given, count))
    if isinstance(given, Iterable) and not isinstance(given, str):
        wanted = list(cast(Iterable[Any], given))
        if wanted and all(isinstance(i, int) and not isinstance(i, bool) and -count <= i < count for i in wanted):
            return sorted({i % count for i in wanted})
    raise ValueError(
        f"indices = {indices!r}: must be None, a number of last stages from 1 to {count}, "
        f"or a list of stages from {-count} to {count - 1}"
    )


def _bypassed(wiring: Wiring, nodes: Sequence[str], later: Collection[str]) -> bool:
    """Return whether some path of the whole network, or some path that reaches a later stage, avoids all ``nodes``."""
    whole, free = ({INPUT: INPUT not in nodes} for _ in range(2))
    for node in wiring.nodes:
        through = node.name not in nodes
        chosen = node.sources if isinstance(node, Unit) else [o.source for o in node.chosen(WHOLE)]
        whole[node.name] = through and any(whole[source] for source in chosen)
        free[node.name] = through and any(free[source] for source in node.sources)
    return whole[wiring.output] or any(free.get(name, False) for name in later)
