"""Let ReLUs after joins overwrite the joins' outputs."""

from __future__ import annotations

from torch import nn

from polypath.core.wiring import Join, Unit
from polypath.fusion.draft import Draft


def reuse_sums(draft: Draft) -> None:
    """Make each ReLU after a join overwrite the join's output, if no other node reads this output."""
    for path, module in draft.modules.items():
        nodes = [n for n in draft.nodes.values() if isinstance(n, Unit) and n.module == path]
        if type(module) is nn.ReLU and all(_fresh(draft, node.source) for node in nodes):
            draft.modules[path] = nn.ReLU(inplace=True)


def _fresh(draft: Draft, name: str) -> bool:
    node = draft.nodes.get(name)
    joins = isinstance(node, Join) and node.kind in ("mean", "sum", "max", "concat") and len(node.operands) > 1
    return joins and draft.read_once(name)
