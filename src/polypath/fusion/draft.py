"""A network that is being rewritten: its nodes and modules, by name, in topological order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from polypath.core.network import PathNet
from polypath.core.wiring import Join, Node, Unit, Wiring
from polypath.fusion.network import FusedNet


@dataclass
class Draft:
    """A mutable wiring and its modules. No more choices can be made, but gates still decide.

    Attributes:
        nodes: the nodes by name, in topological order.
        modules: the modules by path.
        output: the output node.
        about: further arguments of :class:`PathNet`.
    """

    nodes: dict[str, Node]
    modules: dict[str, nn.Module]
    output: str
    about: Mapping[str, Any]

    @classmethod
    def of(cls, net: PathNet) -> Draft:
        """Make a draft of ``net``. Rewriting changes the modules of ``net``, so pass a copy."""
        modules = {path: net.get_submodule(path) for path in net.wiring.modules}
        about = {"min_size": net.min_size, "config": net.config}
        return cls(dict(net.wiring.by_name), modules, net.wiring.output, about)

    def finish(self) -> FusedNet:
        """Build the rewritten network."""
        used = {n.module for n in self.nodes.values() if isinstance(n, Unit)}
        used |= {g.module for n in self.nodes.values() if isinstance(n, Join) for g in n.gates}
        modules = {path: module for path, module in self.modules.items() if path in used}
        return FusedNet(Wiring(tuple(self.nodes.values()), self.output), modules, **self.about)

    # --- queries of the passes ---------------------------------------------------------------------------

    def units(self, kind: type[nn.Module]) -> list[tuple[Unit, Any]]:
        """List the unit nodes whose modules are of one kind, each with its module."""
        found = [(n, self.modules[n.module]) for n in self.nodes.values() if isinstance(n, Unit)]
        return [(node, module) for node, module in found if isinstance(module, kind)]

    def readers(self, name: str) -> list[Node]:
        """List the nodes that read ``name``, once for each operand or gate of the node that reads it."""
        found: list[Node] = []
        for node in self.nodes.values():
            gates = node.gates if isinstance(node, Join) else ()
            found += [node] * [*node.sources, *(g.source for g in gates)].count(name)
        return found

    def read_once(self, name: str) -> bool:
        """Return whether ``name`` is read exactly once and is not the output."""
        return name != self.output and len(self.readers(name)) == 1

    def sharing(self, path: str) -> int:
        """Count the nodes that run the module at ``path``."""
        return sum(isinstance(n, Unit) and n.module == path for n in self.nodes.values())

    @property
    def gated(self) -> bool:
        return any(isinstance(n, Join) and n.gates for n in self.nodes.values())

    # --- changes by the passes ---------------------------------------------------------------------------

    def put(self, node: Node) -> None:
        """Replace the node with the same name."""
        self.nodes[node.name] = node

    def insert_before(self, name: str, nodes: Iterable[Node]) -> None:
        """Add new nodes before an existing one."""
        new, rest = list(nodes), self.nodes
        self.nodes = {}
        for node in rest.values():
            if node.name == name:
                self.nodes |= {n.name: n for n in new}
            self.nodes[node.name] = node

    def move_module(self, node: Unit, path: str, module: nn.Module) -> Unit:
        """Make a unit node run ``module`` at ``path``, without a variant; return the node."""
        self.modules[path] = module
        self.put(moved := replace(node, module=path, variant=None))
        return moved

    def bypass(self, name: str) -> None:
        """Remove a node with one source; its readers then read the source."""
        (source,) = self.nodes.pop(name).sources
        self.output = source if self.output == name else self.output
        for node in list(self.nodes.values()):
            self.put(reading(node, name, source))


def reading(node: Node, old: str, new: str) -> Node:
    """Copy ``node`` so that it reads ``new`` instead of ``old``."""
    if isinstance(node, Unit):
        return replace(node, source=new) if node.source == old else node
    operands = tuple(replace(o, source=new) if o.source == old else o for o in node.operands)
    gates = tuple(replace(g, source=new) if g.source == old else g for g in node.gates)
    return replace(node, operands=operands, gates=gates)
