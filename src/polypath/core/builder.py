"""Builders: write a wiring down node by node, with its modules or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polypath.core.network import PathNet
from polypath.core.wiring import INPUT, Gate, Join, Node, Operand, Unit, Wiring


class WiringBuilder:
    """Writes a wiring down node by node; each call returns the new node's name, to be read by later ones."""

    input = INPUT

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self.stages: dict[str, tuple[str, ...]] = {}

    def unit(
        self, name: str, source: str, *, depth: int = 0, module: str | None = None, variant: str | None = None
    ) -> str:
        """Add a unit; its module's path is the node's name unless ``module`` says otherwise."""
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
        """Add a join of ``{label: source}``; ``survival`` gives stochastic depth's rates by label."""
        rates = survival or {}
        joined = tuple(Operand(source, label, rates.get(label, 1.0)) for label, source in operands.items())
        self._nodes.append(Join(name, kind, joined, gates))
        return name

    def stage(self, node: str, name: str | None = None) -> str:
        """Name the stage that ends at ``node``, by default after it: where a backbone gives its maps of one resolution.

        All paths must go through it. Where they go through several nodes side by side, call this for each with one
        ``name``; the stage is the mean of those alive. From input to output, see :mod:`polypath.core.stages`.
        """
        stage = name or node
        self.stages[stage] = (*self.stages.get(stage, ()), node)
        return node

    def wiring(self, output: str) -> Wiring:
        return Wiring(tuple(self._nodes), output)


class NetBuilder(WiringBuilder):
    """Writes a wiring down together with its modules: the tool that families are built with."""

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
        """Add a unit node and its module; ``at`` is the module's path where it is not the node's name."""
        self.modules.setdefault(at or name, module)
        return self.unit(name, source, depth=depth, module=at, variant=variant)

    def chain(self, prefix: str, source: str, modules: Sequence[nn.Module], *, depth: int = 1) -> str:
        """Add ``prefix.unit1``, ``prefix.unit2``, … one after the other."""
        for i, module in enumerate(modules, 1):
            source = self.add(f"{prefix}.unit{i}", source, module, depth=depth)
        return source

    def net(self, output: str, **options: Any) -> PathNet:
        return PathNet(self.wiring(output), self.modules, stages=self.stages, **options)
