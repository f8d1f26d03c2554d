"""Count, iterate over and sample the fixed choices of a wiring, and find the neighbours of a choice.

A fixed choice sets the operands of every alive join: one operand for a switch, a non-empty set for other joins. Gated
switches are set too, so the same nodes run for all images. Dead joins are not part of a choice, so two choices never
differ only in dead joins.

Choices are built from the output backwards, because a node is alive if the output needs it. The only
information kept from node to node is the set of earlier nodes that are needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import cast

import torch

from polypath.core.paths import Paths
from polypath.core.wiring import Join, Unit, Wiring

MOST_OPERANDS = 12  # a join with more operands has too many subsets to enumerate
Needed = frozenset[str]
Taken = tuple[tuple[str, tuple[str, ...]], ...]


class ChoiceSpace:
    """A collection of all fixed choices of a wiring.

    Raises:
        ValueError: a join with too many operands to enumerate their subsets.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.options = {name: _options(join) for name, join in wiring.joins.items()}
        self._nodes = wiring.nodes[::-1]

    @cached_property
    def count(self) -> int:
        """The exact number of choices, however large."""
        return self._ways[0][frozenset((self.wiring.output,))]

    def __iter__(self) -> Iterator[Paths]:
        """Yield every choice, in arbitrary order, without storing all of them."""
        stack: list[tuple[int, Needed, Taken]] = [(0, frozenset((self.wiring.output,)), ())]
        while stack:
            k, needed, taken = stack.pop()
            if k == len(self._nodes):
                yield Paths.of(self.wiring, dict(taken))
                continue
            stack.extend((k + 1, after, (*taken, *chosen)) for chosen, after in self._steps(k, needed))

    def draw(self, generator: torch.Generator) -> Paths:
        """Draw one choice; all choices are equally likely."""
        needed, taken = frozenset((self.wiring.output,)), dict[str, tuple[str, ...]]()
        for k in range(len(self._nodes)):
            steps = self._steps(k, needed)
            ticket, i = below(self._ways[k][needed], generator) if len(steps) > 1 else 0, 0
            while (ticket := ticket - self._ways[k + 1][steps[i][1]]) >= 0:
                i += 1
            chosen, needed = steps[i]
            taken.update(chosen)
        return Paths.of(self.wiring, taken)

    def fixed(self, choice: Paths) -> Paths:
        """Return a copy of ``choice`` that takes the last operand at each switch where gates would decide."""
        while open_ := [n for n in self.wiring.alive(choice) if isinstance(n, Join) and n.dynamic(choice)]:
            choice = Paths.of(self.wiring, {**choice, **{join.name: join.labels[-1:] for join in open_}})
        return choice

    def is_fixed(self, choice: Paths) -> bool:
        """Return whether ``choice`` leaves no decision to gates."""
        return self.fixed(choice) == choice

    def neighbours(self, choice: Paths) -> list[Paths]:
        """List the choices that differ at one alive join: one operand more or less, or another operand of a switch.

        A join that becomes alive gets all its operands; a switch that becomes alive gets its last operand.
        """
        found: dict[Paths, None] = {}
        for node in self.wiring.alive(choice):
            if not isinstance(node, Join):
                continue
            now = {operand.label for operand in node.chosen(choice)}
            for labels in self.options[node.name]:
                if len(now.symmetric_difference(labels)) == (2 if node.kind == "switch" else 1):
                    found[self.fixed(Paths.of(self.wiring, {**choice, node.name: labels}))] = None
        found.pop(choice, None)
        return list(found)

    # --- from the output backwards -----------------------------------------------------------------------

    @cached_property
    def _ways(self) -> list[dict[Needed, int]]:
        """For the k-th node from the end, entry k maps each set of needed nodes to the number of remaining choices."""
        reached: list[dict[Needed, int]] = [{frozenset((self.wiring.output,)): 0}]
        for k in range(len(self._nodes)):
            reached.append({after: 0 for needed in reached[k] for _, after in self._steps(k, needed)})
        reached[-1] = dict.fromkeys(reached[-1], 1)
        for k in reversed(range(len(self._nodes))):
            for needed in reached[k]:
                reached[k][needed] = sum(reached[k + 1][after] for _, after in self._steps(k, needed))
        return reached

    def _steps(self, k: int, needed: Needed) -> list[tuple[Taken, Needed]]:
        """List the options at the k-th node from the end, each with the earlier nodes that are then needed."""
        node = self._nodes[k]
        if node.name not in needed:
            return [((), needed)]
        rest = needed - {node.name}
        if isinstance(node, Unit):
            return [((), rest | {node.source})]
        sources = {operand.label: operand.source for operand in node.operands}
        return [
            (() if node.kind == "concat" else ((node.name, labels),), rest.union(sources[label] for label in labels))
            for labels in self.options[node.name]
        ]


def below(n: int, generator: torch.Generator) -> int:
    """Draw a whole number uniformly from [0, n), for n of any size."""
    count = (n.bit_length() + 64) // 31 + 1
    drawn = torch.randint(2**31, (count,), generator=generator)
    digits = cast(list[int], drawn.tolist())  # pyright: ignore[reportUnknownMemberType] (torch does not type it)
    value = 0
    for digit in digits:
        value = value * 2**31 + digit
    return value * n >> (31 * len(digits))


def _options(join: Join) -> tuple[tuple[str, ...], ...]:
    """List the legal sets of labels for a join, each in the join's order."""
    if join.kind == "concat":
        return (join.labels,)
    if join.kind == "switch":
        return tuple((label,) for label in join.labels)
    if len(join.labels) > MOST_OPERANDS:
        raise ValueError(
            f"join {join.name!r} has {len(join.labels)} operands: choices can be listed only if each join has at most "
            f"{MOST_OPERANDS} operands"
        )
    sizes = range(1, len(join.labels) + 1)
    return tuple(itertools.chain.from_iterable(itertools.combinations(join.labels, size) for size in sizes))
