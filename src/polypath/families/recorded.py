"""Split a timm model into a chain of its modules, and find its residual blocks.

torch.fx records the model's own code, ``forward_features`` and ``forward_head``; timm lists the modules that torch.fx
cannot record. A block is *residual* if its graph ends in an addition, and one operand is the block's input itself (not
only a tensor of the same shape). After the addition, only a ReLU of the block may follow. A transformer block has two
such additions, so it is two residual steps, one after the other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from polypath.core.network import set_module
from polypath.core.script import follow_mode

ADDITIONS: tuple[Any, ...] = (operator.add, cast(Any, operator).iadd, torch.add, "add", "add_")
CALL = "call_module"
_INNER = "inner."


class Recorded(nn.Module):
    """A part of a model: its submodules and parameters under their own names, and its code as torch.fx recorded it.

    Args:
        root: the model or block that contains the part; modules and parameters are shared, not copied.
        graphs: the graph of each variant; a part without variants has one graph, under None.
    """

    def __init__(self, root: nn.Module, graphs: Mapping[str | None, fx.Graph]) -> None:
        super().__init__()
        self.used = {variant: _targets(graph) for variant, graph in graphs.items()}
        for target in dict.fromkeys(target for used in self.used.values() for target in used):
            _share(root, target, self)
        self.code: dict[str | None, Callable[[nn.Module, Tensor], Tensor]] = {
            variant: type(fx.GraphModule(self, graph)).forward for variant, graph in graphs.items()
        }

    def forward(self, x: Tensor, variant: str | None = None) -> Tensor:
        return self.code[variant](self, x)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that are outside of layers, such as tokens and positions."""
        return {name for name, _ in self.named_parameters(recurse=False)}

    def keep_variants(self, variants: Collection[str]) -> None:
        """Keep these variants. Remove the others, and the modules and parameters that only the others use."""
        used = self.used
        self.used = {variant: used[variant] for variant in used if variant in variants}
        self.code = {variant: self.code[variant] for variant in self.used}
        kept = {target for targets in self.used.values() for target in targets}
        for target in {target for targets in used.values() for target in targets} - kept:
            owner, _, name = target.rpartition(".")
            delattr(self.get_submodule(owner), name)


@dataclass(frozen=True)
class Piece:
    """One unit of the chain.

    Attributes:
        name: name of the node, without ``head.``.
        path: path of the module in the model.
        variant: which variant of the module runs.
        residual: whether the unit is a residual block or step, so that it can be skipped.
    """

    name: str
    path: str
    module: nn.Module
    variant: str | None = None
    residual: bool = False


Steps = Mapping[str | None, fx.Graph]
"""Maps the name of each step's largest submodule to the step's graph. Empty if the block is a single residual step."""


def chains_of(model: nn.Module) -> tuple[list[Piece], list[Piece]]:
    """Split ``forward_features`` and ``forward_head`` into pieces, without identities.

    Raises:
        ValueError: the code is not a chain of modules.
        Exception: any exception, if torch.fx cannot record the code.
    """
    blocks = residual_blocks(model)
    features = list(_chain(model, "forward_features", blocks, 1))
    steps = sum(isinstance(piece.module, Recorded) and piece.variant is None for piece in features)
    return features, list(_chain(model, "forward_head", {}, 1 + steps))


def residual_blocks(model: nn.Module) -> dict[str, Steps]:
    """Return the outermost residual blocks by their names, in the model's order."""
    found: dict[str, Steps] = {}
    for name, module in cast(Iterator[tuple[str, nn.Module]], model.named_modules()):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and next(module.children(), None) is not None:
            steps = residual_steps(module)
            if steps is not None:
                found[name] = steps
    return found


def residual_steps(module: nn.Module) -> Steps | None:
    """Return the steps of a residual block, or None if the module is not a residual block."""
    try:
        graph = _record(module, "forward", lambda _: True)
        begin, end = _ends(graph)
    except Exception:  # another package's code may raise anything; then the module counts as not residual
        return None
    value = _before_relu(end, module)
    additions: list[tuple[fx.Node, fx.Node]] = []  # (operand that skips the step, addition)
    while value is not begin:
        before = _added_to(value, begin, module)
        if before is None:
            return None
        additions.insert(0, (before, value))
        value = before
    if len(additions) <= 1:
        return {} if additions else None
    parts = [_part(graph, *ends) for ends in additions]
    names = [max(_targets(part), key=lambda target: _size(module, target), default="") for part in parts]
    if additions[-1][1] is not end or len({*names, ""}) <= len(parts):
        return None  # with a ReLU after several steps, the last step that is not skipped would have to run the ReLU
    return dict(zip(names, parts, strict=True))


def _chain(model: nn.Module, method: str, blocks: Mapping[str, Steps], first: int) -> Iterator[Piece]:
    """Yield a piece for each module that is called and for each residual step. Other code between them is in the pieces
    ``step1``, ``step2``, …, counted from ``first``."""
    above = {outer for name in blocks for outer in accumulate(name.split(".")[:-1], "{}.{}".format)}
    opened = {id(model.get_submodule(name)) for name in above}
    graph = _record(model, method, lambda module: id(module) not in opened)
    names: set[str] = set()
    for start, end in _segments(graph):
        target = str(end.target) if end.op == CALL and end.args == (start,) and not end.kwargs else ""
        if not target:
            yield Piece(f"step{first}", f"step{first}", Recorded(model, {None: _part(graph, start, end)}))
            first += 1
            continue
        module = model.get_submodule(target)
        if isinstance(module, nn.Identity):
            continue
        if target in names:
            raise ValueError(f"module {target} is called twice, so the model is not a chain")
        names.add(target)
        if steps := blocks.get(target):
            block = Recorded(module, steps)
            for step in steps:
                yield Piece(f"{target}.{step}", target, block, step, residual=True)
        else:
            yield Piece(target, target, module, residual=target in blocks)


def _record(root: nn.Module, method: str, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph:
    """Record the graph of ``root.method(x)``. Its targets are names of modules and parameters in ``root``."""
    from timm.models import get_notrace_functions, is_notrace_module

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return is_leaf(m) or is_notrace_module(type(m))

    graph = Tracer(autowrap_functions=tuple(cast(list[Callable[..., Any]], get_notrace_functions()))).trace(
        _Method(root, method)
    )
    for node in list(graph.nodes):
        if node.op in (CALL, "get_attr"):
            node.target = str(node.target).removeprefix(_INNER)
    return follow_mode(graph)


class _Method(nn.Module):
    """A module whose forward is a method of another module, with one tensor as its argument."""

    def __init__(self, inner: nn.Module, method: str) -> None:
        super().__init__()
        self.inner, self.method = inner, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.inner, self.method)(x)


def _ends(graph: fx.Graph) -> tuple[fx.Node, fx.Node]:
    """Return the nodes of the graph's input and of its return value.

    Raises:
        ValueError: the graph does not have exactly one input and one output value.
    """
    begins = [node for node in graph.nodes if node.op == "placeholder"]
    end = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(begins) != 1 or not isinstance(end, fx.Node):
        raise ValueError("the recorded code does not map one tensor to one tensor")
    return begins[0], end


def _segments(graph: fx.Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Cut the graph before and after each module with one input, at values that are the only input of all later code.

    Yield the first and the last value of each segment.
    """
    begin, end = _ends(graph)
    line = _between(begin, end)
    at = {node: i for i, node in enumerate(line)}
    last = [max((at[user] for user in node.users if user in at), default=i) for i, node in enumerate(line)]
    start, reach = begin, last[0]
    for i, node in enumerate(line[1:], 1):
        if reach <= i:
            after = line[i + 1] if i + 1 < len(line) else None
            read = after is None or (after.op == CALL and after.args == (node,) and not after.kwargs)
            if read or (node.op == CALL and node.args == (start,) and not node.kwargs):
                yield start, node
                start = node
        reach = max(reach, last[i])


def _between(start: fx.Node, end: fx.Node) -> list[fx.Node]:
    """List the nodes on all routes from ``start`` to ``end`` in order, including ``start`` and ``end``."""
    needed, found = _needed(end, start), {start}
    for node in start.graph.nodes:
        if node in needed and any(source in found for source in node.all_input_nodes):
            found.add(node)
    return [node for node in start.graph.nodes if node in found]


def _needed(end: fx.Node, start: fx.Node) -> set[fx.Node]:
    """Return the nodes that ``end`` depends on, including ``end`` itself. The search stops at ``start``."""
    found: set[fx.Node] = set()
    todo = [end]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += [] if node is start else node.all_input_nodes
    return found


def _part(graph: fx.Graph, start: fx.Node, end: fx.Node) -> fx.Graph:
    """Copy the code that computes ``end`` from ``start`` to a separate graph."""
    part, needed = fx.Graph(), _needed(end, start)
    copies = {start: part.placeholder("x")}
    for node in graph.nodes:
        if node in needed and node is not start:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    return part


def _before_relu(node: fx.Node, module: nn.Module) -> fx.Node:
    """Return the input of ``node`` if ``node`` is a ReLU, else ``node`` itself."""
    if node.op == CALL and isinstance(module.get_submodule(str(node.target)), nn.ReLU):
        return node.all_input_nodes[0]
    return node


def _added_to(node: fx.Node, begin: fx.Node, module: nn.Module) -> fx.Node | None:
    """Return the operand that skips the residual step, or None if ``node`` is not the addition of a residual step.

    This operand is ``begin`` or an earlier addition. The other operand depends only on this operand.
    """
    if node.op == CALL or node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
        return None
    for operand, other in (node.args, node.args[::-1]):
        if isinstance(operand, fx.Node) and isinstance(other, fx.Node):
            while operand.op == CALL and isinstance(module.get_submodule(str(operand.target)), nn.Identity):
                operand = operand.all_input_nodes[0]
            made_of = _needed(other, operand)
            if operand in made_of and (operand is begin or (operand.target in ADDITIONS and begin not in made_of)):
                return operand
    return None


def _targets(graph: fx.Graph) -> tuple[str, ...]:
    """List the submodules, parameters and buffers that a graph uses."""
    found = (str(node.target) for node in graph.nodes if node.op in (CALL, "get_attr"))
    return tuple(target for target in dict.fromkeys(found) if target != "training")


def _size(root: nn.Module, target: str) -> int:
    """Return 1 + the number of a submodule's parameters, or 0 for other targets, such as a parameter."""
    try:
        return 1 + sum(p.numel() for p in root.get_submodule(target).parameters())
    except AttributeError:
        return 0


def _share(root: nn.Module, target: str, part: nn.Module) -> None:
    """Put the module or tensor at ``target`` in ``root`` at the same place in ``part``."""
    owner, _, name = target.rpartition(".")
    held = getattr(root.get_submodule(owner), name)
    if isinstance(held, nn.Module):
        set_module(part, target, held)
        return
    if owner:
        raise ValueError(f"tensor {target} is used outside of its own module")
    if isinstance(held, nn.Parameter):
        part.register_parameter(name, held)
    else:
        part.register_buffer(name, held, persistent=name in root.state_dict())
