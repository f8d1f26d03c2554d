"""The nodes of a wiring: units run a module, joins merge operands.

A *choice* tells which operands of joins are alive. Here it is any mapping from a join's name to operand labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from polypath.core.checks import check, number, one_of

INPUT = "input"
JOIN_KINDS = ("mean", "sum", "max", "switch", "concat")
Choice = Mapping[str, tuple[str, ...]]
WHOLE: Choice = {}

_LABEL = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Unit:
    """A node that applies one module to one tensor.

    Attributes:
        name: the node's name, unique in the wiring.
        source: the node whose output it reads.
        module: dotted path of the module that it runs; several nodes may share one module.
        depth: number of layers that it adds to the depth of a path (an activation or a pool adds 0).
        variant: which of the module's variants to run (the norm of one loop, say), or None.
    """

    name: str
    source: str
    module: str
    depth: int = 0
    variant: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True)
class Operand:
    """One input of a join. Texts and error messages refer to it by ``label``, never by position.

    ``survival`` is the probability that stochastic depth keeps the operand in training. In evaluation, a sum multiplies
    the operand by this probability (Huang et al. 2016, Eq. 5); a switch does not.
    """

    source: str
    label: str
    survival: float = 1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate, which decides for each sample whether a switch continues to the operand ``opens``.

    Its ``module`` reads the output of the node ``source``.
    """

    module: str
    source: str
    opens: str


@dataclass(frozen=True, slots=True)
class Join:
    """A node that merges its alive operands.

    The kinds ``mean``, ``sum`` and ``max`` merge any non-empty set of operands, and ``concat`` always all. A ``switch``
    takes exactly one; without a choice, its gates decide, or it takes the last one.
    """

    name: str
    kind: str
    operands: tuple[Operand, ...]
    gates: tuple[Gate, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(o.source for o in self.operands)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(o.label for o in self.operands)

    def chosen(self, choice: Choice) -> tuple[Operand, ...]:
        """Return the operands that run under ``choice``."""
        labels = choice.get(self.name)
        if labels is not None:
            return tuple(o for o in self.operands if o.label in labels)
        if self.kind == "switch" and not self.gates:
            return self.operands[-1:]
        return self.operands

    def dynamic(self, choice: Choice) -> bool:
        """Return whether gates decide at run time, because ``choice`` does not."""
        return bool(self.gates) and self.name not in choice


Node = Unit | Join


def check_join(join: Join) -> None:
    """Check a join, without the rest of its wiring.

    Raises:
        ValueError: an unknown kind, no operands, duplicate labels, survival rates in a join other than a sum or a
            switch, gates in a join other than a switch.
    """
    check(f"join {join.name!r}: kind", join.kind, one_of(*JOIN_KINDS))
    if not join.operands:
        raise ValueError(f"join {join.name!r} has no operands")
    if len(set(join.labels)) < len(join.labels):
        raise ValueError(f"join {join.name!r}: labels {join.labels} are not distinct")
    for operand in join.operands:
        if not _LABEL.fullmatch(operand.label):
            raise ValueError(f"join {join.name!r}: label {operand.label!r} must be letters, digits or '_'")
        check(f"join {join.name!r}: survival of {operand.label!r}", operand.survival, number(above=0, high=1))
        if operand.survival != 1.0 and join.kind != "sum" and (join.kind != "switch" or join.gates):
            kind = "gated switch" if join.gates else join.kind
            raise ValueError(f"join {join.name!r}: only sums and switches have survival, but this is a {kind}")
    if join.gates and join.kind != "switch":
        raise ValueError(f"join {join.name!r}: only a switch has gates, but this is a {join.kind}")
    for gate in join.gates:
        if gate.opens not in join.labels[1:]:
            raise ValueError(
                f"join {join.name!r}: a gate opens {gate.opens!r}, which is not one of {', '.join(join.labels[1:])}"
            )
