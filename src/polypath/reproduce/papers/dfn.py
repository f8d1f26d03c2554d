"""Deeply-fused nets (Zhao et al. 2016): Figures 2 and 4, Tables 1, 4 and 5, Figure 12.

Rows are called after the plain net's depth, as in Table 4: DFN-IL and DFN-MR of row 38 have 20 layers. Bars of Figures
2, 4 and 12 are lost in the text at hand; where a table prints the same networks, its numbers stand beside ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polypath.cost import count_paths
from polypath.families.base import Family
from polypath.families.fusenet import FIGURE_4, TABLE_1, FusedNet, InceptionLike, MergeAndRun, PlainNet
from polypath.families.resnet import TABLE_4, ResNet
from polypath.reproduce.claims import Claim, better, counted
from polypath.reproduce.experiment import Cell, Experiment, Measured
from polypath.reproduce.figures import bars
from polypath.reproduce.measure import per_arm, whole
from polypath.reproduce.members import average, shared_members
from polypath.reproduce.papers.drawing import along_rows, training_panels
from polypath.reproduce.papers.quick import TRACED, quick
from polypath.reproduce.papers.rows import always, beats_printed, gap_grows, gaps, published_setting, slope
from polypath.reproduce.papers.shapes import millions, shapes
from polypath.reproduce.scales import at_scales, paper, smoke
from polypath.reproduce.trained import Trained
from polypath.training.path_objectives import SharedEnsemble
from polypath.training.recipe import Recipe
from polypath.training.recipes.dfn import ROUTES

ROUTE_TEXTS = tuple(f"route={route}" for route in ROUTES)
KINDS = ("plain", "ResNet", "DFN-IL", "DFN-MR")
NARROW = "8, 16 and 32 maps instead of 16, 32 and 64"


def net(kind: str, row: int, width: int = 16) -> Family:
    """A network of Table 4's row ``row``."""
    match kind:
        case "plain":
            return PlainNet(depth=row, width=width)
        case "ResNet":
            return ResNet(depth=row, width=width)
        case "DFN-IL":
            return InceptionLike(depth=row // 2 + 1, width=width)
        case _:
            return MergeAndRun(depth=row // 2 + 1, width=width)


def small_net(kind: str, row: int, **changes) -> Recipe:
    return quick(net(kind, row, width=8), **(TRACED | changes))


# --- Table 4 and Figure 12 ----------------------------------------------------------------------------------------

RECIPES = {"plain": "plain{0}", "ResNet": "resnet{0}", "DFN-IL": "dfn_il{1}", "DFN-MR": "dfn_mr{1}"}
DATASETS = {"": "cifar10", "C100": "cifar100", "SVHN": "svhn"}
SMALL_ROW = 26


def published_row(kind: str, row: int, dataset: str) -> Recipe:
    return paper(f"{RECIPES[kind].format(row, row // 2 + 1)}-{dataset}")


def _table4() -> dict[str, Recipe]:
    return {
        _key(kind, row, end): published_row(kind, row, dataset)
        for end, dataset in DATASETS.items()
        for row in TABLE_4
        for kind in KINDS
        if kind != "plain" or not end
    }


def _key(kind: str, row: int, end: str = "") -> str:
    return f"{kind} {row}" + (f" {end}" if end else "")


def _printed4() -> dict[str, Cell]:
    columns = {"plain": "plain", "ResNet": "resnet", "DFN-IL": "dfn_il", "DFN-MR": "dfn_mr"}
    return {
        _key(kind, row, end): Cell("table4", f"{end or 'C10'}_{columns[kind]}", depth_plain_resnet=row)
        for end in DATASETS
        for row in TABLE_4
        for kind in KINDS
        if kind != "plain" or not end
    }


@functools.cache
def _size(kind: str, row: int) -> tuple[float, int, int]:
    """Parameters in millions, depth and exact number of paths of a network of Table 4."""
    built = shapes(spec := net(kind, row))
    return millions(spec), built.wiring.longest(), count_paths(built)


def sizes(scale: str) -> dict[str, float]:
    """Sizes of the published networks in the scale's rows."""
    found: dict[str, float] = {}
    for row in TABLE_4 if scale == "paper" else (SMALL_ROW,):
        for kind in KINDS:
            params, depth, paths = _size(kind, row)
            found |= {f"{kind} {row} params": params, f"{kind} {row} depth": depth, f"{kind} {row} paths": paths}
    return found


def _same_size(_: Mapping[str, float]) -> float:
    return 0.5 - sum(_size("DFN-MR", row)[2] != _size("ResNet", row)[2] for row in TABLE_4)


def _shallower(_: Mapping[str, float]) -> float:
    return 0.5 - sum(_size("DFN-MR", row)[1] != _size("ResNet", row)[1] / 2 + 1 for row in TABLE_4)


def _larger_than_il(_: Mapping[str, float]) -> float:
    return min(_size("DFN-MR", row)[2] - _size("DFN-IL", row)[2] for row in TABLE_4)


def _as_printed(_: Mapping[str, float]) -> float:
    return 0.05 - max(abs(_size(kind, row)[0] - TABLE_4[row]) for row in TABLE_4 for kind in ("ResNet", "DFN-MR"))


def _better_than_resnets(end: str, data: str) -> Claim:
    """Both kinds of DFN against the ResNet of every row."""

    def statistic(m: Mapping[str, float]) -> Any:
        return np.min([g for kind in KINDS[2:] for g in gaps(m, "ResNet", kind, end).values()], axis=0)

    return Claim(
        f"{data}: DFN-MRs and DFN-ILs perform better than ResNets (§6.3)", statistic, says="smallest error difference"
    )


TABLE4 = Experiment(
    name="dfn/table4",
    place="Table 4",
    shows="what DFN-IL and DFN-MR err beside the plain net and the ResNet of the same size",
    scales=at_scales(
        lambda: (
            {_key(kind, row): smoke(net(kind, row, 4)) for row in (14,) for kind in KINDS}
            | {"plain 8": smoke(net("plain", 8, 4))}
        ),
        lambda: (
            {_key(kind, SMALL_ROW): small_net(kind, SMALL_ROW) for kind in KINDS} | {"plain 14": small_net("plain", 14)}
        ),
        _table4,
        small_says=(NARROW, f"one row, {SMALL_ROW}, and a plain net of 14 layers"),
        paper_seeds=5,
    ),
    measure=per_arm(whole),
    counts=sizes,
    units={" params": "M parameters", " depth": "layers", " paths": "paths", " loss": "nats"},
    published=_printed4()
    | {
        f"{k} {row} params": Cell("table4", "params_millions", depth_plain_resnet=row) for row in TABLE_4 for k in KINDS
    },
    claims=(
        slope("plain", "CIFAR-10: plain nets get worse with depth", falls=False),
        always("ResNet", "DFN-MR", "CIFAR-10: DFN-MRs consistently perform better than ResNets (§6.3)"),
        always("ResNet", "DFN-IL", "CIFAR-10: DFN-ILs consistently perform better than ResNets (§6.3)"),
        always("DFN-IL", "DFN-MR", "CIFAR-10: DFN-MRs perform the best (§6.3)"),
        gap_grows("ResNet", "DFN-MR", "CIFAR-10: DFN-MR's superiority grows with depth (§6.3)"),
        _better_than_resnets("C100", "CIFAR-100"),
        _better_than_resnets("SVHN", "SVHN"),
        counted(
            "merge-and-run's ensemble size is that of a ResNet in the same setup (§5)",
            _same_size,
            says="rows whose exact numbers of paths, 4·3^(n−1) and 4^n, differ: 0.5 minus that",
        ),
        counted("DFN-MR's ensemble is larger than DFN-IL's (§6.3)", _larger_than_il, "paths", "smallest difference"),
        counted(
            "a DFN-MR has half the depth of its ResNet, and 1 (Fig. 12)", _shallower, says="0.5 minus rows that differ"
        ),
        counted(
            "a row's networks have the printed number of parameters",
            _as_printed,
            "M",
            "0.05 minus the largest difference",
        ),
    ),
    figure=bars([_key(kind, row) for row in (8, 14, *TABLE_4) for kind in KINDS]),
    notes=("Row d has plain nets and ResNets of d layers, DFN-IL and DFN-MR of d/2 + 1.",),
)


def curves(run: Trained) -> Measured:
    """Loss in training and test error by epoch, and their means over the epochs (``area``: how fast they fell)."""
    rows = run.metrics()
    loss = [(r["epoch"], r["train_loss"]) for r in rows]
    error = [(r["epoch"], r["traced_test_error"]) for r in rows if "traced_test_error" in r]
    values = {"loss area": float(np.mean([y for _, y in loss]))} if loss else {}
    values |= {"error area": float(np.mean([y for _, y in error]))} if error else {}
    return Measured(values=values, curves={"loss": loss, "error": error})


def named_whole(run: Trained) -> Measured:
    """:func:`curves` under keys that begin with the arm's name."""
    found = curves(run)
    return Measured(
        values={f"whole {key}": v for key, v in found.values.items()},
        curves={f"whole {key}": v for key, v in found.curves.items()},
    )


FIGURE12 = Experiment(
    name="dfn/fig12",
    place="Figure 12",
    shows="how fast a ResNet and the DFN-MR of the same size learn",
    scales=at_scales(
        lambda: {_key(k, 14): smoke(net(k, 14, 4), epochs=2, trace_test=True) for k in ("ResNet", "DFN-MR")},
        lambda: {_key(k, SMALL_ROW): small_net(k, SMALL_ROW) for k in ("ResNet", "DFN-MR")},
        lambda: {
            _key(k, row): _traced(published_row(k, row, "cifar10")) for row in TABLE_4 for k in ("ResNet", "DFN-MR")
        },
        small_says=(NARROW, f"one row, {SMALL_ROW}"),
    ),
    measure=per_arm(whole, named_whole),
    units={" loss": "nats", " loss area": "nats", " error area": "% error"},
    claims=(
        Claim(
            "the training loss of DFN-MR decreases more rapidly (App. B)",
            lambda m: np.mean(list(gaps(m, "ResNet", "DFN-MR", "loss area").values()), axis=0),
            "nats",
            "mean loss over the epochs, ResNet minus DFN-MR",
        ),
        Claim(
            "the test error of DFN-MR also decreases more rapidly (App. B)",
            lambda m: np.mean(list(gaps(m, "ResNet", "DFN-MR", "error area").values()), axis=0),
            "points",
            "mean test error over the epochs, ResNet minus DFN-MR",
        ),
    ),
    figure=training_panels({" loss": "training loss (nats)", " error": "test error (%)"}),
)


def _traced(recipe: Recipe) -> Recipe:
    return replace(recipe, trace_test=True)


# --- Figures 2 and 4, Table 1 -------------------------------------------------------------------------------------


def fused(depth: int, width: int, fusions: int = 3) -> FusedNet:
    return FusedNet(depth=depth, width=width, fusions=fusions)


def ensemble_or_whole(run: Trained) -> Measured:
    """The ensemble's answers where an ensemble was trained, else the whole network's."""
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
        shallow = depth not in FIGURE_4  # Figure 2 begins with 14 layers, of which no other table has a plain net
        recipe = paper(f"plain{20 if shallow else depth}-cifar10")
        return replace(recipe, model=PlainNet(depth=depth)) if shallow else recipe
    return paper(f"fusenet_nf3_{depth}-cifar10" + ("-ensemble" if kind == "ensemble" else ""))


def _table1_cells(depths: Iterable[int]) -> dict[str, Cell]:
    columns = {"DFN": "dfn_tandem_ensemble", "ensemble": "conventional_ensemble"}
    return {f"{kind} {d}": Cell("table1", column, depth=d) for d in depths for kind, column in columns.items()}


FIGURE2 = Experiment(
    name="dfn/fig2",
    place="Figure 2",
    shows="plain nets, fused nets of three fusions and the ensembles of their eight routes, by depth",
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
        always("plain", "DFN", "DFNs outperform the plain network of every depth (§3.1)"),
        always("plain", "ensemble", "ensembles of their routes outperform the plain network of every depth (§3.1)"),
        Claim(
            "DFNs and ensembles perform similarly: closer to each other than to the plain network (§3.1)",
            lambda m: np.mean(
                [
                    np.minimum(a, b) - np.abs(a - b)
                    for a, b in zip(
                        gaps(m, "plain", "DFN").values(), gaps(m, "plain", "ensemble").values(), strict=True
                    )
                ],
                axis=0,
            ),
            says="smaller of the two gaps to plain, minus the gap between them, mean over depths",
        ),
        Claim(
            "beyond 20 layers the ensemble performs better than the DFN (§3.1)",
            lambda m: np.mean([g for d, g in _deep(m).items()], axis=0),
            says="error of the DFN minus that of the ensemble, mean over depths above 20",
        ),
    ),
    figure=along_rows({"plain": "plain", "DFN": "DFN", "ensemble": "ensemble"}, "depth of the plain net (layers)"),
    notes=(
        "Figure 2's numbers are lost: those of the same fused nets and ensembles stand in Table 1, of plain nets in "
        "Table 4 (means of five runs).",
    ),
)


def _deep(m: Mapping[str, float]) -> dict[int, float]:
    found = {d: g for d, g in gaps(m, "DFN", "ensemble").items() if d > 20}
    if not found:
        raise KeyError("DFN beside ensemble beyond 20 layers")
    return found


@functools.cache
def route_depths(scale: str) -> Mapping[str, float]:
    """Depths of Table 1's component networks, by route and depth of the plain net."""
    found = {}
    for depth in TABLE_1 if scale == "paper" else (14, 26, 38):
        built = shapes(fused(depth, 16))
        for route in ROUTES:
            found[f"{route} {depth} depth"] = built.wiring.longest(built.paths(f"route={route}"))
    return found


def _depths_differ(_: Mapping[str, float]) -> float:
    from polypath.reproduce.published import value

    found = route_depths("paper")
    return 0.5 - sum(found[f"{r} {d} depth"] != value("dfn", "table1", r, depth=d) for d in TABLE_1 for r in ROUTES)


TABLE1 = Experiment(
    name="dfn/table1",
    place="Table 1",
    shows="what fused nets of three fusions and the ensembles of their routes err as the component networks deepen",
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
        counted("the component networks have the printed depths", _depths_differ, says="0.5 minus depths that differ"),
        slope("DFN", "up to 26 layers the DFN improves with its component networks", falls=True, most=26),
        slope("ensemble", "up to 26 layers the ensemble improves with them, too", falls=True, most=26),
        slope("DFN", "from 26 layers on the DFN gets worse with them", falls=False, least=26),
        slope("ensemble", "from 26 layers on the ensemble gets worse with them, too", falls=False, least=26),
    ),
    figure=along_rows(
        {"DFN": "DFN (tandem ensemble)", "ensemble": "ensemble of routes"}, "depth of the plain net (layers)"
    ),
    notes=("The ensemble of depth 110 is 10.1 in Table 1 and 9.61 in Tables 2 and 3.",),
)


@functools.cache
def ensemble_sizes(scale: str) -> Mapping[str, float]:
    """Exact numbers of component networks of Figure 4's nets, and how many of N_f3's are among N_f6's."""
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
    """The shapes of a route's convs, in order."""
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
    shows="nets of 3 fusions, 6 fusions and a fusion every two layers (ResNet), of the same depth",
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
        always("N_f3", "N_f6", "N_f6 always outperforms N_f3 (§3.2)"),
        always("N_f6", "ResNet", "ResNets, with the largest ensembles, perform the best (§3.2)"),
        slope("ResNet", "deeper ResNets perform better (§4)", falls=True),
        counted(
            "ensemble sizes are 8, 64 and 2^((depth − 2)/2) (§3.2)", _sizes_differ, says="0.5 minus sizes that differ"
        ),
        counted(
            "N_f3's component networks are among N_f6's (§3.2)",
            lambda _: 0.5 - sum(n != 8 for key, n in ensemble_sizes("paper").items() if key.endswith("in N_f6 paths")),
            says="0.5 minus depths where one is missing",
        ),
    ),
    figure=along_rows({k: k for k in FUSED_KINDS}, "depth (layers)"),
    notes=("Figure 4's bars are lost: N_f3's numbers stand in Table 1, some ResNets' in Table 4.",),
)


# --- Table 5 ------------------------------------------------------------------------------------------------------

ROW5 = {"DFN-MR1": (56, 16), "DFN-MR2": (32, 64), "DFN-MR3": (50, 64)}
BEST_OTHER = {"": 3.74, "C100": 19.25, "SVHN": 1.59}
"""DenseNet's, the best of other methods in Table 5."""


def _table5_sizes(scale: str) -> Mapping[str, float]:
    nets = {name: shapes(MergeAndRun(depth=d, width=w)) for name, (d, w) in ROW5.items()}
    return {f"{name} params": sum(p.numel() for p in built.parameters()) / 1e6 for name, built in nets.items()}


def _beats(end: str, data: str) -> Claim:
    text = f"{data}: DFN-MR3 errs less than every other method of Table 5"
    return beats_printed(_named("DFN-MR3", end), BEST_OTHER[end], "DenseNet", text)


def _named(name: str, end: str) -> str:
    return name + (f" {end}" if end else "")


TABLE5 = Experiment(
    name="dfn/table5",
    place="Table 5",
    shows="DFN-MR narrow and deep (1), wide (2), wide and deep (3)",
    scales=at_scales(
        lambda: {
            name: smoke(MergeAndRun(depth=d, width=w))
            for name, (d, w) in {"DFN-MR1": (14, 4), "DFN-MR2": (8, 8), "DFN-MR3": (14, 8)}.items()
        },
        lambda: {
            name: quick(MergeAndRun(depth=d, width=w))
            for name, (d, w) in {"DFN-MR1": (26, 4), "DFN-MR2": (14, 16), "DFN-MR3": (20, 16)}.items()
        },
        lambda: {
            _named(name, end): paper(f"{name.lower().replace('-', '_')}-{dataset}")
            for end, dataset in DATASETS.items()
            for name in ROW5
        },
        small_says=("depths 26, 14, 20 and widths 4, 16, 16 instead of 56, 32, 50 and 16, 64, 64",),
    ),
    measure=per_arm(whole, published_setting),
    counts=_table5_sizes,
    units={" params": "M parameters", " loss": "nats"},
    published={_named(n, end): Cell("table5", end or "C10", method=f"{n} (ours)") for n in ROW5 for end in DATASETS}
    | {f"{n} params": Cell("table5", "params_millions", method=f"{n} (ours)") for n in ROW5},
    claims=(
        better("DFN-MR2", "DFN-MR1", "the wide, less deep net errs less than the narrow, deep one"),
        better("DFN-MR3", "DFN-MR2", "of the wide nets, the deeper errs less"),
        _beats("", "CIFAR-10"),
        _beats("C100", "CIFAR-100"),
        counted(
            "DFN-MR1, 2 and 3 have 1.7, 14.9 and 24.8M parameters",
            lambda m: 0.06 - max(abs(m[f"DFN-MR{n} params"] - p) for n, p in ((1, 1.7), (2, 14.9), (3, 24.8))),
            "M",
            "0.06 minus the largest difference",
        ),
    ),
    figure=bars([_named(n, end) for end in DATASETS for n in ROW5]),
    notes=("The authors' released code, too, gives DFN-MR3 24.15M parameters, not the printed 24.8M.",),
)

EXPERIMENTS = (FIGURE2, TABLE1, FIGURE4, TABLE4, TABLE5, FIGURE12)
