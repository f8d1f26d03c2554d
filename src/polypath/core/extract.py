"""Extract a path of a network as a standalone network."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Protocol, cast

from torch import nn

from polypath.core.arguments import takes
from polypath.core.batchnorm import BatchNormStatistics, bake
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK, STATISTICS
from polypath.core.paths import Paths
from polypath.core.stages import pruned_stages
from polypath.core.wiring import Wiring


@takes(net=NETWORK, stats=STATISTICS)
def extract(net: PathNet, paths: Paths | str, *, stats: BatchNormStatistics | None = None) -> PathNet:
    """Copy ``paths`` into a standalone network with only the weights that these paths need.

    The result's output equals ``net(x, paths=paths)`` bit for bit in eager float32. Its state-dict keys are a subset of
    the parent's; its weights are copies, and it has no reference to the parent. Operands and stages keep their names,
    so the remaining choices have the same texts as before.
    With ``stats``, this path's recalibrated statistics are copied into the result and noted in the result's config.

    Raises:
        ValueError: unknown or impossible choices, statistics that lack this path.
    """
    paths = net.paths(paths)
    wiring = net.wiring.prune(paths)
    modules = kept_modules(net, wiring)
    child = PathNet(
        wiring,
        modules,
        selectors=net.selectors,
        path_names=net.path_names,
        path_sets=net.path_sets,
        stages=pruned_stages(net.wiring, net.stage_nodes, paths),
        min_size=net.min_size,
        config=copy.deepcopy(net.config),
    )
    child.config["paths"] = str(_composed(net, paths))
    if stats is not None:
        bake(child, stats[paths])
        child.config["statistics"] = stats.record
    if not any(join.gates for join in wiring.joins.values()):
        child.config.pop("gates", None)
    child.train(net.training)
    return child


def extract_estimated(net: PathNet, paths: Paths, stats: BatchNormStatistics | None) -> PathNet:
    """Extract a path in evaluation mode, with its recalibrated statistics if ``stats`` contains them."""
    return extract(net, paths, stats=stats if stats is not None and paths in stats else None).eval()


class HasVariants(Protocol):
    """A module that has several variants of a part (such as the norm of each loop) and can drop some of them."""

    def keep_variants(self, variants: Collection[str]) -> None: ...


def kept_modules(net: PathNet, wiring: Wiring) -> dict[str, nn.Module]:
    """Copy the modules of ``net`` that the pruned ``wiring`` refers to, each with only the variants in use."""
    modules: dict[str, nn.Module] = {}
    for path in wiring.modules:
        module = modules[path] = copy.deepcopy(net.get_submodule(path))
        if path in wiring.variants:
            cast(HasVariants, module).keep_variants(wiring.variants[path])
    return modules


def _composed(net: PathNet, paths: Paths) -> Mapping[str, tuple[str, ...]]:
    """Convert ``paths`` to a choice on the family's full wiring, since ``net`` itself may be an extracted network."""
    earlier = net.config.get("paths")
    if not earlier or earlier == "whole":
        return paths
    chosen: dict[str, str] = {part.partition("=")[0]: part.partition("=")[2] for part in earlier.split(";")}
    chosen.update({name: ",".join(labels) for name, labels in paths.items()})
    return Paths(tuple((name, tuple(labels.split(","))) for name, labels in chosen.items()))
