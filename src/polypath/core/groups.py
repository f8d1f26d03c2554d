"""Groups of parameters for timm's optimisers: by depth, for layer-wise learning rates, and by weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from polypath.core.stages import Stages
from polypath.core.wiring import INPUT, Unit, Wiring


def depth_groups(wiring: Wiring, stages: Stages) -> Callable[[str], int]:
    """Return a function from the name of a parameter or module to the number of its group, counted from the input.

    A unit's group is the number of units before it on the longest path, so parallel units of equal depth are in the
    same group. With ``stages``, each stage is a group, and the modules after the last stage are one more group.
    """
    group = _stage_groups(wiring, stages) if stages else _unit_groups(wiring)
    last = max(group.values(), default=0)

    def group_of(name: str) -> int:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if (found := group.get(".".join(parts[:end]))) is not None:
                return found
        return last

    return group_of


def _unit_groups(wiring: Wiring) -> dict[str, int]:
    before: dict[str, int] = {INPUT: 0}
    found: dict[str, int] = {}
    for node in wiring.nodes:
        deepest = max(before[source] for source in node.sources)
        before[node.name] = deepest + isinstance(node, Unit)
        if isinstance(node, Unit):
            found[node.module] = min(deepest, found.get(node.module, deepest))
        else:
            found.update({gate.module: deepest for gate in node.gates if gate.module not in found})
    return found


def _stage_groups(wiring: Wiring, stages: Stages) -> dict[str, int]:
    found: dict[str, int] = {}
    for i, nodes in enumerate(stages.values()):
        for path in wiring.modules_before(nodes):
            found.setdefault(path, i)
    for path in wiring.modules:
        found.setdefault(path, len(stages))
    return found


def undecayed(root: nn.Module, wiring: Wiring) -> set[str]:
    """Return the names of the parameters, other than biases and vectors, that get no weight decay. Units list these
    parameters in ``no_weight_decay()``; class tokens and position embeddings are examples."""
    names: set[str] = set()
    for path in wiring.modules:
        unit: Any = root.get_submodule(path)
        if (own := getattr(unit, "no_weight_decay", None)) is not None:
            names |= {f"{path}.{name}" for name in own()}
    return names
