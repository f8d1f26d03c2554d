"""Builders that make a wiring node by node, with or without its modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polypath.core.network import PathNet
from polypath.core.wiring import INPUT, Gate, Join, Node, Operand, Unit, Wiring


class WiringBuilder:
    """A builder that makes a wiring node by node. Each node is added with the names of the earlier nodes that it reads.

    The methods that add or mark a node return the node's name.
    """

    input = INPUT

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self.stages: dict[str, tuple[str, ...]] = {}

    def unit(
        self, name: str, source: str, *, depth: int = 0, module: str | None = None, variant: str | None = None
    ) -> str:
        """Add a unit that runs the module at the path ``module``, by default at the node's name."""
        self._nodes.append(Unit(name, source, module or name, depth, variant))
        return name

    def join(
        self,
        name: str,
        operands: Mapping[str, str],
        kind: str = "mean",
        *,
        survival: Mapping[str, float] | None = None,
        gates: tuple[Gate, ...] = (),
    ) -> str:
        """Add a join with operands ``{label: source}``; ``survival`` is ``{label: rate}`` for stochastic depth."""
        rates = survival or {}
        joined = tuple(Operand(source, label, rates.get(label, 1.0)) for label, source in operands.items())
        self._nodes.append(Join(name, kind, joined, gates))
        return name

    def stage(self, node: str, name: str | None = None) -> str:
        """Mark ``node`` as the end of a stage, whose maps a backbone returns. ``name`` is by default the node's name.

        All paths must go through the node. If paths go through different parallel nodes, call this method for each of
        these nodes, with the same ``name``. The stage's value is then the mean over the nodes that are alive. Mark the
        stages in order, from input to output; see :mod:`polypath.core.stages`.
        """
        stage = name or node
        self.stages[stage] = (*self.stages.get(stage, ()), node)
        return node

    def wiring(self, output: str) -> Wiring:
        return Wiring(tuple(self._nodes), output)


class NetBuilder(WiringBuilder):
    """A builder of a wiring together with its modules. The families' networks are made with this class."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[str, nn.Module] = {}

    def add(
        self,
        name: str,
        source: str,
        module: nn.Module,
        *,
        depth: int = 0,
        at: str | None = None,
        variant: str | None = None,
    ) -> str:
        """Add a unit node and its module; ``at`` is the module's path if that differs from the node's name."""
        self.modules.setdefault(at or name, module)
        return self.unit(name, source, depth=depth, module=at, variant=variant)

    def chain(self, prefix: str, source: str, modules: Sequence[nn.Module], *, depth: int = 1) -> str:
        """Add units ``prefix.unit1``, ``prefix.unit2``, …, each of which reads the one before; return the last name."""
        for i, module in enumerate(modules, 1):
            source = self.add(f"{prefix}.unit{i}", source, module, depth=depth)
        return source

    def net(self, output: str, **options: Any) -> PathNet:
        return PathNet(self.wiring(output), self.modules, stages=self.stages, **options)
