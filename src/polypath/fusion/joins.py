"""Fold a mean's division into the convs that it averages, which leaves a sum; ReLUs behind joins work in place.

Max- and average-pools and views of some maps commute with a factor above 0, so the conv may stand behind them.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from polypath.fusion.draft import Draft
from polypath.fusion.units import FoldedConv
from polypath.wiring import Join, Unit

COMMUTING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.ReLU)


def fold_means(draft: Draft) -> None:
    """Turn means into sums where every operand comes from a conv that nobody else reads."""
    for node in list(draft.nodes.values()):
        if isinstance(node, Join) and node.kind == "mean" and len(node.operands) > 1:
            convs = [_only_conv_behind(draft, operand.source) for operand in node.operands]
            if all(conv is not None for conv in convs) and len(set(map(id, convs))) == len(convs):
                for conv in convs:
                    assert conv is not None
                    conv.scale(1.0 / len(convs))
                draft.put(replace(node, kind="sum"))


def reuse_sums(draft: Draft) -> None:
    """Let ReLUs write into what a join has just made, where nobody else reads that."""
    for path, module in draft.modules.items():
        nodes = [n for n in draft.nodes.values() if isinstance(n, Unit) and n.module == path]
        if type(module) is nn.ReLU and all(_fresh(draft, node.source) for node in nodes):
            draft.modules[path] = nn.ReLU(inplace=True)


def _fresh(draft: Draft, name: str) -> bool:
    node = draft.nodes.get(name)
    joins = isinstance(node, Join) and node.kind in ("mean", "sum", "max", "concat") and len(node.operands) > 1
    return joins and draft.read_once(name)


def _only_conv_behind(draft: Draft, name: str) -> FoldedConv | None:
    """The conv that gives ``name``, where nothing but this one reading depends on it."""
    while draft.read_once(name):
        node = draft.nodes.get(name)
        if not isinstance(node, Unit) or node.variant is not None:
            return None
        module = draft.modules[node.module]
        if isinstance(module, FoldedConv):
            return module if draft.sharing(node.module) == 1 else None
        if type(module) not in COMMUTING:
            return None
        name = node.source
    return None
