"""Deeply-fused nets (Zhao et al. 2016) with a few fusions: Figures 2 and 4, Table 1.

The bars of both figures are missing in our copy of the paper. If a table of the paper has numbers of the
same networks, these are used instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from polypath.families.fusenet import FIGURE_4, TABLE_1, FusedNet, PlainNet
from polypath.families.resnet import TABLE_4, ResNet
from polypath.profiling.cost import count_paths
from polypath.reproduce.claims import Claim, counted
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.measure import per_arm, whole
from polypath.reproduce.measured import Measured
from polypath.reproduce.members import average, shared_members
from polypath.reproduce.papers.dfn import NARROW
from polypath.reproduce.papers.drawing import along_rows
from polypath.reproduce.papers.quick import quick
from polypath.reproduce.papers.rows import always, gaps, slope
from polypath.reproduce.papers.shapes import shapes
from polypath.reproduce.published import value
from polypath.reproduce.scales import at_scales, paper, smoke
from polypath.reproduce.trained import Trained
from polypath.training.path_objectives import SharedEnsemble
from polypath.training.recipe import Recipe
from polypath.training.recipes.dfn import ROUTES

ROUTE_TEXTS = tuple(f"route={route}" for route in ROUTES)


def fused(depth: int, width: int, fusions: int = 3) -> FusedNet:
    return FusedNet(depth=depth, width=width, fusions=fusions)


def ensemble_or_whole(run: Trained) -> Measured:
    """Measure which test images are classified correctly: by the ensemble, if one was trained, else by the whole
    network."""
    if isinstance(run.recipe.objective, SharedEnsemble):
        return Measured({"whole": run.marked(average(shared_members(run)))})
    return Measured(run.correct({"whole": run.net.paths("whole")}))


def _fused(kind: str, depth: int, make: Callable[..., Recipe], width: int, **changes) -> Recipe:
    if kind == "plain":
        return make(PlainNet(depth=depth, width=width), **changes)
    objective = SharedEnsemble(routes=ROUTE_TEXTS) if kind == "ensemble" else None
    return make(fused(depth, width), objective, **changes)


def _published_fused(kind: str, depth: int) -> Recipe:
    if kind == "plain":
        return paper(f"plain{depth}-cifar10")
    return paper(f"fusenet_nf3_{depth}-cifar10" + ("-ensemble" if kind == "ensemble" else ""))


def _table1_cells(depths: Iterable[int]) -> dict[str, Cell]:
    columns = {"DFN": "dfn_tandem_ensemble", "ensemble": "conventional_ensemble"}
    return {f"{kind} {d}": Cell("table1", column, depth=d) for d in depths for kind, column in columns.items()}


FIGURE2 = Experiment(
    name="dfn/fig2",
    place="Figure 2",
    shows="the errors of plain nets, fused nets of three fusions and the ensembles of their eight routes, by depth",
    scales=at_scales(
        lambda: {f"{k} {d}": _fused(k, d, smoke, 4) for d in (8, 14) for k in ("plain", "DFN", "ensemble")},
        lambda: {f"{k} {d}": _fused(k, d, quick, 8) for d in (14, 26) for k in ("plain", "DFN", "ensemble")},
        lambda: {f"{k} {d}": _published_fused(k, d) for d in TABLE_1 for k in ("plain", "DFN", "ensemble")},
        small_says=(NARROW, "depths 14 and 26"),
    ),
    measure=per_arm(ensemble_or_whole),
    published=_table1_cells(TABLE_1)
    | {f"plain {d}": Cell("table4", "C10_plain", depth_plain_resnet=d) for d in TABLE_4 if d in TABLE_1},
    claims=(
        always("dfn-beats-plain", "plain", "DFN", "DFNs outperform the plain network of every depth (§3.1)"),
        always(
            "ensemble-beats-plain",
            "plain",
            "ensemble",
            "ensembles of a DFN's routes outperform the plain network of every depth (§3.1)",
        ),
        Claim(
            "dfn-and-ensemble-are-similar",
            "DFNs and ensembles perform similarly: their errors are closer to each other than to the plain network's "
            "(§3.1)",
            lambda m: np.mean(
                [
                    np.minimum(a, b) - np.abs(a - b)
                    for a, b in zip(
                        gaps(m, "plain", "DFN").values(), gaps(m, "plain", "ensemble").values(), strict=True
                    )
                ],
                axis=0,
            ),
            says="smaller error gap to plain minus the gap between DFN and ensemble, averaged over the depths",
        ),
        Claim(
            "ensemble-beats-dfn-beyond-20-layers",
            "beyond 20 layers, the ensemble performs better than the DFN (§3.1)",
            lambda m: np.mean([g for d, g in _deep(m).items()], axis=0),
            says="error of the DFN minus error of the ensemble, averaged over depths above 20",
        ),
    ),
    figure=along_rows({"plain": "plain", "DFN": "DFN", "ensemble": "ensemble"}, "depth of the plain net (layers)"),
    notes=(
        "The numbers of Figure 2 are missing in our copy of the paper. Table 1 has those of the same fused nets and "
        "ensembles, and Table 4 has those of plain nets (means of five runs).",
    ),
)


def _deep(m: Mapping[str, float]) -> dict[int, float]:
    found = {d: g for d, g in gaps(m, "DFN", "ensemble").items() if d > 20}
    if not found:
        raise KeyError("DFN beside ensemble beyond 20 layers")
    return found


@functools.cache
def route_depths(scale: str) -> Mapping[str, float]:
    """Count the depths of Table 1's component networks, by route and depth of the plain net."""
    found = {}
    for depth in TABLE_1 if scale == "paper" else (14, 26, 38):
        built = shapes(fused(depth, 16))
        for route in ROUTES:
            found[f"{route} {depth} depth"] = built.wiring.longest(built.paths(f"route={route}"))
    return found


def _depths_differ(_: Mapping[str, float]) -> float:
    found = route_depths("paper")
    return 0.5 - sum(found[f"{r} {d} depth"] != value("dfn", "table1", r, depth=d) for d in TABLE_1 for r in ROUTES)


TABLE1 = Experiment(
    name="dfn/table1",
    place="Table 1",
    shows="the errors of fused nets of three fusions and of ensembles of their routes, and the routes' depths",
    scales=at_scales(
        lambda: {f"{k} {d}": _fused(k, d, smoke, 4) for d in (8, 14) for k in ("DFN", "ensemble")},
        lambda: {f"{k} {d}": _fused(k, d, quick, 8) for d in (14, 26, 38) for k in ("DFN", "ensemble")},
        lambda: {f"{k} {d}": _published_fused(k, d) for d in TABLE_1 for k in ("DFN", "ensemble")},
        small_says=(NARROW, "depths 14, 26 and 38"),
    ),
    measure=per_arm(ensemble_or_whole),
    counts=route_depths,
    units={" depth": "layers"},
    published=_table1_cells(TABLE_1) | {f"{r} {d} depth": Cell("table1", r, depth=d) for d in TABLE_1 for r in ROUTES},
    claims=(
        counted(
            "depths-as-printed",
            "the component networks have the printed depths",
            _depths_differ,
            says="0.5 minus the number of component networks with another depth",
        ),
        slope(
            "dfn-improves-up-to-26-layers",
            "DFN",
            "up to 26 layers, the DFN improves as its component networks get deeper",
            falls=True,
            most=26,
        ),
        slope(
            "ensemble-improves-up-to-26-layers",
            "ensemble",
            "up to 26 layers, the ensemble improves as the component networks get deeper",
            falls=True,
            most=26,
        ),
        slope(
            "dfn-worsens-from-26-layers",
            "DFN",
            "from 26 layers on, the DFN gets worse as its component networks get deeper",
            falls=False,
            least=26,
        ),
        slope(
            "ensemble-worsens-from-26-layers",
            "ensemble",
            "from 26 layers on, the ensemble gets worse as the component networks get deeper",
            falls=False,
            least=26,
        ),
    ),
    figure=along_rows(
        {"DFN": "DFN (tandem ensemble)", "ensemble": "ensemble of routes"}, "depth of the plain net (layers)"
    ),
    notes=("The error of the ensemble of depth 110 is 10.1 in Table 1 and 9.61 in Tables 2 and 3.",),
)


@functools.cache
def ensemble_sizes(scale: str) -> Mapping[str, float]:
    """Count exactly the component networks of the networks in Figure 4, and those of N_f3 that are also component
    networks of N_f6."""
    found: dict[str, float] = {}
    for depth in FIGURE_4 if scale == "paper" else (20, 38):
        three, six = shapes(fused(depth, 16)), shapes(fused(depth, 16, 6))
        found |= {f"N_f3 {depth} paths": count_paths(three), f"N_f6 {depth} paths": count_paths(six)}
        found[f"ResNet {depth} paths"] = count_paths(shapes(ResNet(depth=depth)))
        inside = {_layers(six, p) for text, p in six.named_paths().items() if text.startswith("route=")}
        own = [_layers(three, p) for text, p in three.named_paths().items() if text.startswith("route=")]
        found[f"N_f3 {depth} in N_f6 paths"] = sum(layers in inside for layers in own)
    return found


def _layers(built, path) -> tuple:
    """Return the shapes of a route's convs, in order."""
    nodes = [node.module for node in built.wiring.alive(path) if hasattr(node, "module")]
    return tuple(tuple(p.shape) for name in nodes for p in built.get_submodule(name).parameters() if p.ndim == 4)


def _sizes_differ(_: Mapping[str, float]) -> float:
    wrong, m = 0, ensemble_sizes("paper")
    for depth in FIGURE_4:
        wrong += (m[f"N_f3 {depth} paths"], m[f"N_f6 {depth} paths"]) != (8, 64)
        wrong += m[f"ResNet {depth} paths"] != 2 ** ((depth - 2) // 2)
    return 0.5 - wrong


def _of(kind: str, depth: int, make: Callable[..., Recipe], width: int, **changes) -> Recipe:
    if kind == "ResNet":
        return make(ResNet(depth=depth, width=width), **changes)
    return make(fused(depth, width, int(kind[-1])), **changes)


FUSED_KINDS = ("N_f3", "N_f6", "ResNet")

FIGURE4 = Experiment(
    name="dfn/fig4",
    place="Figure 4",
    shows="the errors of nets with 3 fusions, 6 fusions or a fusion every two layers (ResNet), of the same depth",
    scales=at_scales(
        lambda: {f"{k} {d}": _of(k, d, smoke, 4) for d in (8, 14) for k in FUSED_KINDS},
        lambda: {f"{k} {d}": _of(k, d, quick, 8) for d in (20, 38) for k in FUSED_KINDS},
        lambda: {
            f"{k} {d}": paper(f"resnet{d}-cifar10" if k == "ResNet" else f"fusenet_nf{k[-1]}_{d}-cifar10")
            for d in FIGURE_4
            for k in FUSED_KINDS
        },
        small_says=(NARROW, "depths 20 and 38"),
    ),
    measure=per_arm(whole),
    counts=ensemble_sizes,
    units={" paths": "paths", " loss": "nats"},
    published={f"N_f3 {d}": Cell("table1", "dfn_tandem_ensemble", depth=d) for d in FIGURE_4 if d in TABLE_1}
    | {f"ResNet {d}": Cell("table4", "C10_resnet", depth_plain_resnet=d) for d in FIGURE_4 if d in TABLE_4},
    claims=(
        always("six-fusions-beat-three", "N_f3", "N_f6", "N_f6 always outperforms N_f3 (§3.2)"),
        always(
            "resnet-beats-six-fusions", "N_f6", "ResNet", "ResNets, with the largest ensembles, perform the best (§3.2)"
        ),
        slope("deeper-resnets-are-better", "ResNet", "deeper ResNets perform better (§4)", falls=True),
        counted(
            "ensemble-sizes",
            "N_f3, N_f6 and ResNet have 8, 64 and 2^((depth − 2)/2) component networks (§3.2)",
            _sizes_differ,
            says="0.5 minus the number of networks with another number of component networks",
        ),
        counted(
            "three-fusions-within-six",
            "N_f3's component networks are among N_f6's (§3.2)",
            lambda _: 0.5 - sum(n != 8 for key, n in ensemble_sizes("paper").items() if key.endswith("in N_f6 paths")),
            says="0.5 minus the number of depths at which N_f6 lacks a component network of N_f3",
        ),
    ),
    figure=along_rows({k: k for k in FUSED_KINDS}, "depth (layers)"),
    notes=(
        "The numbers of Figure 4 are missing in our copy of the paper. Table 1 has those of N_f3, Table 4 some of "
        "ResNets.",
    ),
)

EXPERIMENTS = (FIGURE2, TABLE1, FIGURE4)
