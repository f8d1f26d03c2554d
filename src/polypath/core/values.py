"""Run many choices together and compute each value once; value numbering finds the values that choices share.

    values = values_of(net.wiring, choices)
    for k, logits in run_values(net, x, values): ...       # logits equals net(x, paths=choices[k])

A value is the output of a node under some choice. For example, three blocks with 15 choices each have
15 + 225 + 3,375 values at their ends, but separate runs would compute 3 · 3,375 values. A value is computed when a
choice needs it and freed after its last use. Choices sorted by :func:`from_the_input` form a tree of common prefixes.
In this order, only the values along one branch of the tree are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from polypath.core.execute import run_steps
from polypath.core.paths import Paths
from polypath.core.plan import Step, make_plan
from polypath.core.reuse import Version, numbered, same_modules
from polypath.core.wiring import INPUT, Join, Wiring

if TYPE_CHECKING:
    from polypath.core.network import PathNet

IMAGES = 0
"""The number that stands for the input images."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is computed once for all choices that need it.

    Attributes:
        step: the step that computes the value.
        reads: numbers of the values that the step reads.
        choice: the index of the first choice that needs the value.
    """

    step: Step
    reads: tuple[int, ...]
    choice: int


@dataclass(frozen=True, eq=False)
class Values:
    """A collection of all values of some choices.

    Attributes:
        made: the values; their numbers start at 1.
        outputs: for each choice, the number of its output.
    """

    made: tuple[Value, ...]
    outputs: tuple[int, ...]

    def __getitem__(self, number: int) -> Value:
        return self.made[number - 1]

    def behind(self, choice: int) -> set[int]:
        """Return the numbers of all values that a choice's output depends on, including the output's number."""
        found: set[int] = set()
        todo = [self.outputs[choice]]
        while todo:
            number = todo.pop()
            if number != IMAGES and number not in found:
                found.add(number)
                todo += self[number].reads
        return found

    @property
    def readers(self) -> list[int]:
        """A list in which entry n is the number of values and choices that read value n."""
        counts = [0] * (len(self.made) + 1)
        for value in self.made:
            for number in set(value.reads):
                counts[number] += 1
        for number in self.outputs:
            counts[number] += 1
        return counts


def from_the_input(wiring: Wiring, choice: Paths) -> tuple[tuple[str, ...], ...]:
    """Return a sort key that puts choices next to each other if they start alike at the input."""
    taken = {
        node.name: tuple(operand.label for operand in node.chosen(choice))
        for node in wiring.alive(choice)
        if isinstance(node, Join)
    }
    return tuple(taken.get(name, ()) for name in wiring.joins)


def values_of(wiring: Wiring, choices: Sequence[Paths], versions: Sequence[Version] = ()) -> Values:
    """Find the values of some choices.

    Args:
        versions: one :data:`Version` per choice; needed only if modules compute different functions for the choices.
    """
    table: dict[Hashable, int] = {INPUT: IMAGES}
    made: list[Value] = []
    outputs: list[int] = []
    for k, choice in enumerate(choices):
        pruned = wiring.prune(choice)
        plan = make_plan(pruned, Paths())
        numbers = numbered(plan, versions[k] if versions else same_modules, table)
        for step in plan:
            if numbers[step.node.name] > len(made):
                made.append(Value(replace(step, free=()), tuple(numbers[source] for source in step.sources), k))
        outputs.append(numbers[pruned.output])
    return Values(tuple(made), tuple(outputs))


def run_values(
    net: PathNet,
    x: Tensor,
    values: Values,
    around: Callable[[int], AbstractContextManager[None]] = lambda number: nullcontext(),
) -> Iterator[tuple[int, Tensor]]:
    """Yield the index and the logits ``(N, classes)`` of each choice, in order.

    Args:
        around: a function from a value's number to the context manager in which the value is computed.

    Raises:
        ValueError: images on which the network cannot run.
    """
    net.check_images(x)
    held, left = {IMAGES: x}, values.readers

    def read(number: int) -> None:
        left[number] -= 1
        if not left[number]:
            del held[number]

    for k, output in enumerate(values.outputs):
        todo = [output]
        while todo:
            number = todo[-1]
            missing = [] if number in held else [n for n in values[number].reads if n not in held]
            if missing:
                todo += missing
                continue
            todo.pop()
            if number not in held:
                value = values[number]
                inputs = {s: held[n] for s, n in zip(value.step.sources, value.reads, strict=True)}
                with around(number):
                    held[number] = run_steps(net, (value.step,), inputs)[value.step.node.name]
                for n in set(value.reads):
                    read(n)
        yield k, held[output]
        read(output)
