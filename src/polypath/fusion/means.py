"""Fold the division of means into weights, so that means become sums.

If every operand comes from a conv whose output no other node reads, the convs' weights are divided. Otherwise, as in
merge-and-run networks, the mean of k values becomes their sum, so the result is k times too large. This factor passes
through operations that commute with a positive factor (ReLU, pools, sums), and the weights of the next conv or linear
layer are divided by this factor. Values that are joined with such a value get the same factor. Powers of two are exact.
Other runtimes become faster, too: ONNX Runtime has no division in its blocked layout, so it reorders the maps around
each division.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from polypath.core.wiring import Join, Node, Unit
from polypath.fusion.draft import Draft
from polypath.fusion.units import FoldedConv, Part

COMMUTING = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.ReLU, nn.Flatten, Part
)  # fmt: skip
LARGEST = 2.0**60  # values times this factor are still far from float32's limit


def fold_means(draft: Draft) -> None:
    """Turn means into sums, whose values are larger by a factor. If some node cannot pass the factor on, turn only
    means of conv outputs into sums."""
    plan = _Plan(draft, everywhere=True)
    if not plan.possible:
        plan = _Plan(draft, everywhere=False)
    plan.carry_out()


class _Plan:
    """A plan of changes: the joins that change, and the factors of convs' outputs and of layers' inputs.

    ``factors`` contains for each node the factor by which the node's value is too large.
    """

    def __init__(self, draft: Draft, *, everywhere: bool) -> None:
        self.draft, self.everywhere = draft, everywhere
        self.factors: dict[str, float] = {}
        self.joins: list[Join] = []
        self.inputs: list[tuple[nn.Conv2d | nn.Linear, float]] = []
        self.answers: list[tuple[FoldedConv, float]] = []
        self.possible = all(map(self._take, draft.nodes.values())) and self._factor(draft.output) == 1.0

    def carry_out(self) -> None:
        for conv, factor in self.answers:
            conv.scale(factor)
        for layer, factor in self.inputs:
            layer.weight.detach().div_(factor)
        for join in self.joins:
            self.draft.put(join)

    def _factor(self, name: str) -> float:
        return self.factors.get(name, 1.0)

    def _take(self, node: Node) -> bool:
        """Record the changes of ``node``; return whether the node can handle the factors of its inputs."""
        return self._unit(node) if isinstance(node, Unit) else self._join(node)

    def _unit(self, node: Unit) -> bool:
        module, factor = self.draft.modules[node.module], self._factor(node.source)
        if factor == 1.0:
            return True
        if type(module) in COMMUTING:
            self.factors[node.name] = factor
            return True
        layer = module.conv if isinstance(module, FoldedConv) else module
        if (
            not isinstance(layer, nn.Conv2d | nn.Linear)
            or type(layer) not in (nn.Conv2d, nn.Linear)
            or node.variant
            or self.draft.sharing(node.module) > 1
        ):
            return False
        self.inputs.append((layer, factor))
        return True

    def _join(self, node: Join) -> bool:
        if node.gates:
            return all(self._factor(name) == 1.0 for name in (*node.sources, *(g.source for g in node.gates)))
        free = {name: _convs_behind(self.draft, name) for name in node.sources}
        fixed = {self._factor(name) for name, convs in free.items() if not convs}
        if len(fixed) > 1:
            return False
        (factor,) = fixed or {1.0}
        convs = [conv for found in free.values() for conv in found]
        count = len(node.operands)
        if node.kind == "mean" and count > 1 and (self.everywhere or not fixed):
            self.joins.append(replace(node, kind="sum"))
            if fixed:
                self.factors[node.name] = factor * count
            else:
                self.answers += [(conv, 1.0 / count) for conv in convs]
        elif factor != 1.0:
            self.factors[node.name] = factor
        if factor != 1.0:
            self.answers += [(conv, factor) for conv in convs]
        return self._factor(node.name) <= LARGEST


def _convs_behind(draft: Draft, name: str) -> list[FoldedConv]:
    """List the convs that compute ``name``. The list is empty if the convs' outputs are also used elsewhere."""
    node = draft.nodes.get(name)
    if node is None or not draft.read_once(name):
        return []
    if isinstance(node, Join):
        behind = [_convs_behind(draft, source) for source in node.sources]
        return [] if node.gates or not all(behind) else [conv for convs in behind for conv in convs]
    module = draft.modules[node.module]
    if node.variant is None and draft.sharing(node.module) == 1:
        if isinstance(module, FoldedConv):
            return [module]
        if type(module) in COMMUTING:
            return _convs_behind(draft, node.source)
    return []
