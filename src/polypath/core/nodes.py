"""The nodes of a wiring: units run a module, joins merge operands.

A *choice* tells which operands of joins are alive. Here a choice is any mapping from join names to operand labels.
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
        source: the node whose output the unit reads.
        module: dotted path of the unit's module; several nodes may share one module.
        depth: number of layers that the unit adds to the depth of a path (an activation or a pool adds 0).
        variant: which of the module's variants to run (for example, the norm of one loop), or None.
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
    """A gate that decides for each sample whether a switch continues to the operand ``opens``.

    The gate's ``module`` reads the output of the node ``source``.
    """

    module: str
    source: str
    opens: str


@dataclass(frozen=True, slots=True)
class Join:
    """A node that merges its alive operands.

    The kinds ``mean``, ``sum`` and ``max`` merge any non-empty set of operands; ``concat`` always merges all operands.

    A ``switch`` takes exactly one operand. Without a choice, the switch's gates decide, or if there are no gates, the
    last operand is taken.
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
        """Return whether gates decide at run time, because ``choice`` does not contain this join."""
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
            raise ValueError(f"join {join.name!r}: label {operand.label!r} must consist of letters, digits and '_'")
        check(f"join {join.name!r}: survival of {operand.label!r}", operand.survival, number(above=0, high=1))
        if operand.survival != 1.0 and join.kind != "sum" and (join.kind != "switch" or join.gates):
            kind = "gated switch" if join.gates else join.kind
            raise ValueError(
                f"join {join.name!r}: only sums and switches without gates have survival rates, but this is a {kind}"
            )
    if join.gates and join.kind != "switch":
        raise ValueError(f"join {join.name!r}: only a switch can have gates, but this is a {join.kind}")
    for gate in join.gates:
        if gate.opens not in join.labels[1:]:
            raise ValueError(
                f"join {join.name!r}: a gate opens {gate.opens!r}, but must open one of {', '.join(join.labels[1:])}"
            )
