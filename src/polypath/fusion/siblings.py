"""Merge convs that read the same input, and then the next convs of the branches if their outputs are summed.

The first convs of parallel branches all read the block's input. Their weights are stacked into one conv, and each
branch reads a part (a view) of the merged conv's maps. In DFN-IL, the outputs of the branches' next convs are only
summed. If all parts of the merged maps go into such convs, these convs become one conv, which reads all merged maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from polypath.core.checks import check, one_of
from polypath.core.wiring import Join, Node, Unit
from polypath.fusion.draft import Draft
from polypath.fusion.units import FoldedConv, Part, empty_conv

WHICH = ("summed", "all", "none")


def merge_siblings(draft: Draft, which: str = "summed") -> None:
    """Merge siblings, the convs that read the same input. Networks with gates do not change, because their loops may
    read values from outside.

    Args:
        which: ``summed`` merges convs whose readers can be merged too, so that the maps are never split. ``all`` merges
            all siblings, even if the parts of the merged maps have to be copied. ``none`` merges nothing.

    Raises:
        ValueError: another value of ``which``.
    """
    check("siblings", which, one_of(*WHICH))
    if which == "none" or draft.gated:
        return
    for group in _siblings(draft):
        if which == "all" or _summed(draft, group):
            _merge(draft, group)
    _merge_sums(draft)


def _siblings(draft: Draft) -> list[list[Unit]]:
    found: dict[object, list[Unit]] = {}
    for node, module in draft.units(FoldedConv):
        if draft.sharing(node.module) == 1 and module.conv.groups == 1:
            found.setdefault((node.source, _form(module)), []).append(node)
    return [group for group in found.values() if len(group) > 1]


def _summed(draft: Draft, group: Sequence[Unit]) -> bool:
    """Return whether each unit's only reader is a conv without activation, and the only reader of these convs is a sum.

    The convs must also have the same form.
    """
    forms, sums = set(), set()
    for node in group:
        reader = _one_reader(draft, node.name)
        if not isinstance(reader, Unit) or draft.sharing(reader.module) > 1:
            return False
        module = draft.modules[reader.module]
        if not isinstance(module, FoldedConv) or module.act != "none" or module.conv.groups > 1:
            return False
        after = _one_reader(draft, reader.name)
        if not isinstance(after, Join) or after.kind != "sum":
            return False
        if any(o.survival != 1.0 for o in after.operands if o.source == reader.name):
            return False
        forms.add(_form(module))
        sums.add(after.name)
    return len(forms) == len(sums) == 1


def _one_reader(draft: Draft, name: str) -> Node | None:
    return draft.readers(name)[0] if draft.read_once(name) else None


def _form(unit: FoldedConv) -> tuple[object, ...]:
    conv = unit.conv
    return conv.kernel_size, conv.stride, str(conv.padding), conv.dilation


def _merge(draft: Draft, group: Sequence[Unit]) -> None:
    units = [cast(FoldedConv, draft.modules[node.module]) for node in group]
    name = f"siblings.{group[0].name.replace('.', '_')}"
    draft.modules[name] = side_by_side(units)
    draft.insert_before(group[0].name, [Unit(name, group[0].source, name)])
    start = 0
    for node, unit in zip(group, units, strict=True):
        end = start + unit.conv.out_channels
        draft.put(replace(node, source=name))
        draft.modules[node.module] = Part(start, end)
        start = end


@torch.no_grad()
def side_by_side(units: Sequence[FoldedConv]) -> FoldedConv:
    """Merge convs that read the same input into one conv, whose output is the concatenation of their outputs."""
    like = units[0].conv
    conv = empty_conv(like, like.in_channels, sum(u.conv.out_channels for u in units))
    conv.weight.copy_(torch.cat([u.conv.weight for u in units]))
    assert conv.bias is not None
    conv.bias.copy_(torch.cat([_bias(u) for u in units]))
    acts = {u.act for u in units}
    if len(acts) == 1 and acts != {"clamp"}:
        return FoldedConv(conv, units[0].act)
    low, high = (_bounds(units, i, end) for i, end in ((0, -torch.inf), (1, torch.inf)))
    return FoldedConv(conv, "clamp", low, high)


def _bounds(units: Sequence[FoldedConv], i: int, none: float) -> Tensor | None:
    bounds = [u.bounds[i] for u in units]
    if all(b is None for b in bounds):
        return None
    filled = [u.conv.weight.new_full((u.conv.out_channels,), none) for u in units]
    return torch.cat([f if b is None else b for f, b in zip(filled, bounds, strict=True)])


def _merge_sums(draft: Draft) -> None:
    """Replace a sum of convs by one conv, if they have no activation and read all parts of a merged conv."""
    for join in [n for n in draft.nodes.values() if isinstance(n, Join) and n.kind == "sum"]:
        found: dict[str, list[tuple[Unit, Unit]]] = {}
        for operand in join.operands:
            pair = _conv_of_part(draft, operand.source) if operand.survival == 1.0 else None
            if pair is not None:
                found.setdefault(pair[1].source, []).append(pair)
        for whole, pairs in found.items():
            if len(pairs) > 1 and _all_parts(draft, whole, [part for _, part in pairs]):
                _sum(draft, join.name, whole, [conv for conv, _ in pairs])


def _conv_of_part(draft: Draft, name: str) -> tuple[Unit, Unit] | None:
    """Return the conv ``name`` and its source if this is a part. The conv must have no activation, and each of the two
    nodes must be read only once; otherwise return None."""
    node = draft.nodes.get(name)
    if not isinstance(node, Unit) or not draft.read_once(name) or draft.sharing(node.module) > 1:
        return None
    module, part = draft.modules[node.module], draft.nodes.get(node.source)
    if not isinstance(module, FoldedConv) or module.act != "none" or module.conv.groups > 1:
        return None
    if not isinstance(part, Unit) or not isinstance(draft.modules[part.module], Part) or not draft.read_once(part.name):
        return None
    return node, part


def _all_parts(draft: Draft, whole: str, parts: Sequence[Unit]) -> bool:
    return {p.name for p in parts} == {n.name for n in draft.readers(whole)} and whole != draft.output


@torch.no_grad()
def _sum(draft: Draft, join: str, whole: str, nodes: Sequence[Unit]) -> None:
    """Replace convs that read the parts of ``whole`` by one conv that reads ``whole``."""
    units = [cast(FoldedConv, draft.modules[node.module]) for node in nodes]
    parts = [cast(Unit, draft.nodes[node.source]) for node in nodes]
    starts = [cast(Part, draft.modules[part.module]).start for part in parts]
    units = [units[i] for i in sorted(range(len(units)), key=starts.__getitem__)]
    if len({_form(unit) for unit in units}) > 1:
        return
    conv = empty_conv(units[0].conv, sum(u.conv.in_channels for u in units), units[0].conv.out_channels)
    conv.weight.copy_(torch.cat([u.conv.weight for u in units], dim=1))
    assert conv.bias is not None
    conv.bias.copy_(torch.stack([_bias(u) for u in units]).sum(0))
    kept, *others = nodes
    for node in nodes:
        del draft.nodes[node.source]
    for node in others:
        del draft.nodes[node.name]
    gone = {node.name for node in others}
    draft.modules[kept.module] = FoldedConv(conv)
    draft.put(replace(kept, source=whole))
    old = draft.nodes[join]
    assert isinstance(old, Join)
    draft.put(replace(old, operands=tuple(o for o in old.operands if o.source not in gone)))
    if len(draft.nodes[join].sources) == 1:
        draft.bypass(join)


def _bias(unit: FoldedConv) -> Tensor:
    assert unit.conv.bias is not None
    return unit.conv.bias
