"""Dynamic recursive nets (Guo et al., CVPR 2019): the counted cost of the networks of Tables 1 to 3.

Nothing is trained. Multiply-adds are counted for gates that meet their target rate, while the paper averages over
validation images. Parameters are counted with gates on every block, as seems to be the case for the printed numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from polypath.core.gating import Over
from polypath.families.recursive import Recursive
from polypath.profiling.cost import cost
from polypath.profiling.expected import expected_loops, expected_macs
from polypath.reproduce.claims import Claim, contradicted, counted
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import bars
from polypath.reproduce.papers.drnn import PRINTED2, RECIPES3, RESNETS, ROWS3, UNITS, printed1, published1
from polypath.reproduce.papers.shapes import millions, shapes
from polypath.reproduce.scales import exact_scales, paper
from polypath.training.path_objectives import TargetRate
from polypath.training.recipe import Recipe

PAIRS = {
    "DR-ResNet 53": ("ResNet-101", 47.0, 35.2),
    "DR-ResNet 35": ("ResNet-50", 33.7, 17.8),
    "DR-Res 54": ("ResNet-110", 73.53, 24.71),
    "DR-Res 16": ("ResNet-20", 33.3, 22.0),
}
"""The networks whose savings the paper states: base network, percent of the parameters, percent of the computation."""
OVER_ALL = "MACs, rate over all"
CIFAR_PAIRS = tuple(name for pair in ("DR-Res 54", "DR-Res 16") for name in (pair, PAIRS[pair][0]))


def recipes() -> dict[str, tuple[Recipe, int]]:
    """Return the recipe and the side of the images for every network of Tables 1 to 3, by row. The two networks of
    Table 3 that are also in Table 2 are returned once."""
    found = {name: (recipe, 32) for name, recipe in published1().items()}
    found |= {name: (paper(recipe), 224) for name, recipe in RESNETS.items()}
    return found | {name: (paper(RECIPES3[name]), 224) for name in RECIPES3 if name not in ("base net", "gated")}


def spent(recipe: Recipe, side: int, over: Over | None = None) -> float:
    """Return the mean multiply-adds of an image (millions) if gates meet the target rate of the recipe."""
    net, objective = shapes(recipe.model), recipe.objective
    if isinstance(objective, TargetRate):
        return expected_macs(net, objective.target, side, over or objective.over) / 1e6
    return cost(net, "whole", side).macs / 1e6


def _all_gates(recipe: Recipe) -> float:
    """Return the number of parameters in millions. If the network has gates, all blocks are counted with gates."""
    spec = recipe.model
    gated = isinstance(spec, Recursive) and spec.gates != "none"
    return millions(replace(spec, gates="all") if gated else spec)


@functools.cache
def _count(names: tuple[str, ...]) -> dict[str, float]:
    known, found = recipes(), {}
    for name in names:
        recipe, side = known[name]
        found |= {f"{name} params": _all_gates(recipe), f"{name} MACs": spent(recipe, side)}
        objective = recipe.objective
        if isinstance(objective, TargetRate) and isinstance(recipe.model, Recursive) and side == 224:
            found[f"{name} expected loops"] = expected_loops(shapes(recipe.model), objective.target)
    for name, (base, *_) in PAIRS.items():
        if f"{name} MACs" not in found or f"{base} MACs" not in found:
            continue
        for what in ("params", "MACs"):
            found[f"{name} {what} saved"] = _saved(found, name, base, what)
        if name in CIFAR_PAIRS:
            found[f"{name} {OVER_ALL}"] = spent(*known[name], over="all")
    return found


def _saved(m: Mapping[str, float], name: str, base: str, what: str, own: str = "") -> float:
    return 100.0 * (1.0 - m[f"{name} {own or what}"] / m[f"{base} {what}"])


def costs(scale: str) -> Mapping[str, float]:
    """Count parameters, multiply-adds, expected loops and savings."""
    return _count(CIFAR_PAIRS if scale == "smoke" else tuple(recipes()))


def _saves(name: str, what: str, where: str, within: float = 0.5, read: str = "", own: str = "") -> Claim:
    base, *stated = PAIRS[name]
    printed = stated[what == "MACs"]
    kind = "parameters" if what == "params" else "computation"
    id = f"{name.lower().replace(' ', '-')}-saves-{kind}" + ("-over-all" if own else "")
    return counted(
        id,
        f"{name} reduces {kind} by {printed:g}% compared with {base} ({where}; read here: within {within:g} "
        f"points{read})",
        lambda m: within - abs(_saved(m, name, base, what, own) - printed),
        "points",
        f"{within:g} minus the absolute difference between the counted saving and {printed:g}%",
    )


def _printed() -> dict[str, Cell]:
    rows: list[tuple[str, str, dict[str, Any]]] = [(n, "table2", {"model": row}) for n, row in PRINTED2.items()]
    rows += [(name, "table3", {"model": row, **says}) for name, (row, says) in ROWS3.items() if name in recipes()]
    cells = {key: cell for name in published1() for key, cell in printed1(name).items() if key != name}
    for name, table, row in rows:
        cells[f"{name} params"] = Cell(table, "params_millions", **row)
        cells[f"{name} MACs"] = Cell(table, "gflops", times=1000, **row)
    cells["DR-ResNet 53 expected loops"] = Cell("prose", "value", quantity="expected loops at target 0.7")
    both = {
        "DR-Res 54": "DR-Res 54 parameter / compute saving vs ResNet-110, %",
        "DR-Res 16": "DR-Res 16 parameter / compute saving vs ResNet-20, %",
        "DR-ResNet 35": "DR-ResNet-35 parameter / compute saving vs ResNet-50, %",
    }
    for name, quantity in both.items():
        for part, what in enumerate(("params", "MACs")):
            cells[f"{name} {what} saved"] = Cell("prose", "value", part=part, quantity=quantity)
    for what, word in (("params", "parameter"), ("MACs", "compute")):
        quantity = f"DR-ResNet-53 {word} saving vs ResNet-101, %"
        cells[f"DR-ResNet 53 {what} saved"] = Cell("prose", "value", quantity=quantity)
    return cells


def _near(found: Iterable[tuple[float, float]]) -> float:
    return 0.001 - max(abs(one - other) for one, other in found)


ROUNDING = ", because the printed 0.45M and 1.7M are rounded"

COST = Experiment(
    name="drnn/cost",
    place="Tables 1 to 3, counted",
    shows="the parameters and multiply-adds of the published networks if gates meet their target, and the savings",
    scales=exact_scales("only DR-Res 54, DR-Res 16 and their ResNets"),
    counts=costs,
    units={" saved": "%", " expected loops": "loops", f" {OVER_ALL}": "M MACs an image", **UNITS},
    published=_printed(),
    claims=(
        _saves("DR-ResNet 53", "params", "abstract, §4.2"),
        _saves("DR-ResNet 53", "MACs", "abstract, §4.2"),
        _saves("DR-Res 54", "params", "§4.1", 1.1, ROUNDING),
        _saves("DR-Res 54", "MACs", "§4.1"),
        _saves("DR-Res 54", "MACs", "§4.1", 0.5, ", if the target rate is over all samples", OVER_ALL),
        _saves("DR-Res 16", "params", "§4.1"),
        _saves("DR-Res 16", "MACs", "§4.1"),
        contradicted(
            _saves("DR-ResNet 35", "params", "§4.2"),
            "by Table 2, 17.61M is 31.1% less than ResNet-50's 25.56M; 33.7% is the saving from AIG-ResNet-50's 26.56M",
        ),
        _saves("DR-ResNet 35", "MACs", "§4.2"),
        counted(
            "expected-loops",
            "the expected number of loops is 11.921 for DR-ResNet 53 at a target rate of 0.7, 10.502 for DR-ResNet 53 "
            "at 0.65, and 10.055 for DR-ResNet 47 at 0.7 (§4.2: the second number is larger than the third)",
            lambda m: _near(
                [
                    (m["DR-ResNet 53 expected loops"], 11.921),
                    (m["DR-ResNet 53, t = 0.65 expected loops"], 10.502),
                    (m["DR-ResNet 47 expected loops"], 10.055),
                ]
            ),
            "loops",
            "0.001 minus the largest difference between a computed and a stated number",
        ),
    ),
    figure=bars(
        [f"{name} {what} saved" for name in PAIRS for what in ("params", "MACs")], "saved beside its base network (%)"
    ),
    notes=(
        "*DR-Res 54*: if 0.7 is the rate among the samples that reach a gate, the network needs 0.147 GMACs, which is "
        "41.8% less than ResNet-110. The printed 0.192 GMACs follow if 0.7 is the rate over all samples, but this "
        "reading contradicts the numbers of all ImageNet networks.",
        "*DR-Res 16*: we count a saving of 19.4%; the printed 0.032 and 0.041 GMACs give 22.0%. *DR-ResNet 35*: we "
        "count 15.8%; 17.8% is printed. The paper averages over test images with trained gates, which need not meet "
        "their target: rates of 0.65 and 0.77 instead of 0.7 and 0.8 would give the printed numbers.",
    ),
)

EXPERIMENTS = (COST,)
