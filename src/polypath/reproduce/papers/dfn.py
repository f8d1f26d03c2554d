"""Deeply-fused nets (Zhao et al. 2016), merge-and-run against plain nets and ResNets: Tables 4 and 5, Figure 12.

Each row is named by the plain network's depth, as in Table 4: in row 38, DFN-IL and DFN-MR have 20 layers. The curves
of Figure 12 are missing in our copy of the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from polypath.families.base import Family
from polypath.families.fusenet import InceptionLike, MergeAndRun, PlainNet
from polypath.families.resnet import TABLE_4, ResNet
from polypath.profiling.cost import count_paths
from polypath.reproduce.claims import Claim, better, contradicted, counted
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import bars
from polypath.reproduce.measure import named_whole, per_arm, whole
from polypath.reproduce.papers.drawing import training_panels
from polypath.reproduce.papers.quick import TRACED, quick
from polypath.reproduce.papers.rows import AREAS, always, beats_best, gap_grows, gaps, published_setting, slope
from polypath.reproduce.papers.shapes import millions, shapes
from polypath.reproduce.scales import at_scales, medium, paper, smoke, traced
from polypath.training.recipe import Recipe

KINDS = ("plain", "ResNet", "DFN-IL", "DFN-MR")
NARROW = "8, 16 and 32 maps instead of 16, 32 and 64"


def net(kind: str, row: int, width: int = 16) -> Family:
    """Return the network of ``kind`` in the row ``row`` of Table 4."""
    match kind:
        case "plain":
            return PlainNet(depth=row, width=width)
        case "ResNet":
            return ResNet(depth=row, width=width)
        case "DFN-IL":
            return InceptionLike(depth=row // 2 + 1, width=width)
        case _:
            return MergeAndRun(depth=row // 2 + 1, width=width)


HALF = "half of the width: 8, 16 and 32 maps"


def medium_net(kind: str, row: int) -> Recipe:
    """Return the recipe for Table 4 and Figure 12 at ``medium``: half of the width, with the test error measured after
    every epoch."""
    return medium(published_row(kind, row, "cifar10"), 6, model__width=8, trace_test=True, validate_every=1)


def small_net(kind: str, row: int, **changes) -> Recipe:
    return quick(net(kind, row, width=8), **(TRACED | changes))


# --- Table 4 and Figure 12 ----------------------------------------------------------------------------------------

RECIPES = {"plain": "plain{0}", "ResNet": "resnet{0}", "DFN-IL": "dfn_il{1}", "DFN-MR": "dfn_mr{1}"}
DATASETS = {"": "cifar10", "C100": "cifar100", "SVHN": "svhn"}
SMALL_ROW = 26
MEDIUM_ROWS, MEDIUM_KINDS = (26, 38), ("plain", "ResNet", "DFN-MR")


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
    """Count the parameters (in millions), the depth and the exact number of paths of a network of Table 4."""
    built = shapes(spec := net(kind, row))
    return millions(spec), built.wiring.longest(), count_paths(built)


def sizes(scale: str) -> dict[str, float]:
    """Count the sizes of the published networks in the rows of the scale."""
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


def _better_than_resnets(id: str, end: str, text: str, but: int = 0) -> Claim:
    """Claim that both kinds of DFN have a lower error than the ResNet of every row except ``but``."""

    def statistic(m: Mapping[str, float]) -> Any:
        found = [g for kind in KINDS[2:] for row, g in gaps(m, "ResNet", kind, end).items() if row != but]
        if not found:
            raise KeyError(f"ResNet beside DFNs on {end} but at {but}")
        return np.min(found, axis=0)

    rows = f"all rows except {but}" if but else "all rows"
    says = f"smallest difference over both kinds of DFN and {rows}: error of ResNet minus error of DFN"
    return Claim(id, text, statistic, says=says)


TABLE4 = Experiment(
    name="dfn/table4",
    place="Table 4",
    shows="the errors of DFN-IL and DFN-MR beside those of the plain net and the ResNet of the same size",
    scales=at_scales(
        lambda: (
            {_key(kind, row): smoke(net(kind, row, 4)) for row in (14,) for kind in KINDS}
            | {"plain 8": smoke(net("plain", 8, 4))}
        ),
        lambda: (
            {_key(kind, SMALL_ROW): small_net(kind, SMALL_ROW) for kind in KINDS} | {"plain 14": small_net("plain", 14)}
        ),
        _table4,
        lambda: {_key(kind, row): medium_net(kind, row) for row in MEDIUM_ROWS for kind in MEDIUM_KINDS},
        small_says=(NARROW, f"only the row of depth {SMALL_ROW}, and a plain net of 14 layers"),
        medium_says=(HALF, "only the rows of depths 26 and 38; no DFN-IL, which would exceed the budget"),
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
        slope("plain-gets-worse-with-depth", "plain", "CIFAR-10: plain nets get worse with depth", falls=False),
        always(
            "mr-beats-resnet", "ResNet", "DFN-MR", "CIFAR-10: DFN-MRs consistently perform better than ResNets (§6.3)"
        ),
        always(
            "il-beats-resnet", "ResNet", "DFN-IL", "CIFAR-10: DFN-ILs consistently perform better than ResNets (§6.3)"
        ),
        always(
            "mr-beats-il",
            "DFN-IL",
            "DFN-MR",
            "CIFAR-10: DFN-MRs perform the best (§6.3; read here: DFN-MRs perform better than DFN-ILs)",
        ),
        gap_grows(
            "mr-superiority-grows-with-depth",
            "ResNet",
            "DFN-MR",
            "CIFAR-10: DFN-MR's superiority over ResNet grows with depth (§6.3)",
        ),
        contradicted(
            _better_than_resnets(
                "dfns-beat-resnets-c100", "C100", "CIFAR-100: DFN-MRs and DFN-ILs perform better than ResNets (§6.3)"
            ),
            "in Table 4, on CIFAR-100, DFN-IL of 14 layers has an error of 29.75 and the ResNet of 26 layers 29.69; "
            "DFN-IL of 56 layers and the ResNet of 110 layers both have 24.56",
        ),
        _better_than_resnets(
            "dfns-beat-resnets-svhn-but-at-26",
            "SVHN",
            "SVHN: DFN-MRs and DFN-ILs perform better than ResNets, except at depth 26 (§6.3)",
            but=26,
        ),
        Claim(
            "resnet-26-beats-dfns-svhn",
            "SVHN: the ResNet of depth 26 performs better than the DFNs (§6.3)",
            lambda m: np.min([m[f"{kind} 26 SVHN"] - m["ResNet 26 SVHN"] for kind in KINDS[2:]], axis=0),
            says="smaller of the two differences: error of a DFN minus error of the ResNet",
        ),
        counted(
            "mr-ensemble-as-large-as-resnets",
            "a merge-and-run net has as many component networks as a ResNet in the same setup (§5)",
            _same_size,
            says="0.5 minus the number of rows in which the exact numbers of paths (4·3^(n−1) and 4^n) differ",
        ),
        counted(
            "mr-ensemble-larger-than-il",
            "DFN-MR's ensemble is larger than DFN-IL's (§6.3)",
            _larger_than_il,
            "paths",
            "smallest difference over the rows: paths of DFN-MR minus paths of DFN-IL",
        ),
        counted(
            "mr-has-half-the-depth",
            "a DFN-MR has half the depth of its ResNet, plus one layer (Fig. 12)",
            _shallower,
            says="0.5 minus the number of rows in which DFN-MR does not have this depth",
        ),
        counted(
            "parameters-as-printed",
            "the networks of each row have the printed number of parameters",
            _as_printed,
            "M",
            "0.05 minus the largest difference between a counted and a printed number",
        ),
    ),
    figure=bars([_key(kind, row) for row in (8, 14, *TABLE_4) for kind in KINDS]),
    notes=("The row of depth d has plain nets and ResNets of d layers, and DFN-ILs and DFN-MRs of d/2 + 1 layers.",),
)


FIGURE12 = Experiment(
    name="dfn/fig12",
    place="Figure 12",
    shows="how fast a ResNet and the DFN-MR of the same size learn",
    scales=at_scales(
        lambda: {_key(k, 14): smoke(net(k, 14, 4), epochs=2, trace_test=True) for k in ("ResNet", "DFN-MR")},
        lambda: {_key(k, SMALL_ROW): small_net(k, SMALL_ROW) for k in ("ResNet", "DFN-MR")},
        lambda: {
            _key(k, row): traced(published_row(k, row, "cifar10")) for row in TABLE_4 for k in ("ResNet", "DFN-MR")
        },
        lambda: {_key(k, row): medium_net(k, row) for row in MEDIUM_ROWS for k in ("ResNet", "DFN-MR")},
        small_says=(NARROW, f"only the row of depth {SMALL_ROW}"),
        medium_says=(HALF, "only the rows of depths 26 and 38"),
    ),
    measure=per_arm(whole, named_whole),
    units={" loss": "nats", " loss area": "nats", " error area": "% error"},
    claims=(
        Claim(
            "mr-loss-falls-faster",
            "the training loss of DFN-MR decreases more rapidly than that of ResNet (App. B)",
            lambda m: np.mean(list(gaps(m, "ResNet", "DFN-MR", "loss area").values()), axis=0),
            "nats",
            "mean training loss over the epochs: ResNet minus DFN-MR",
        ),
        Claim(
            "mr-error-falls-faster",
            "the test error of DFN-MR decreases more rapidly than that of ResNet (App. B)",
            lambda m: np.mean(list(gaps(m, "ResNet", "DFN-MR", "error area").values()), axis=0),
            "points",
            "mean test error over the epochs: ResNet minus DFN-MR",
        ),
    ),
    figure=training_panels({" loss": "training loss (nats)", " error": "test error (%)"}),
    notes=(AREAS,),
)


# --- Table 5 ------------------------------------------------------------------------------------------------------

ROW5 = {"DFN-MR1": (56, 16), "DFN-MR2": (32, 64), "DFN-MR3": (50, 64)}


def _table5_sizes(scale: str) -> Mapping[str, float]:
    nets = {name: shapes(MergeAndRun(depth=d, width=w)) for name, (d, w) in ROW5.items()}
    return {f"{name} params": sum(p.numel() for p in built.parameters()) / 1e6 for name, built in nets.items()}


def _beats(number: int, end: str, data: str) -> Claim:
    text = f"{data}: DFN-MR{number} has a lower error than every other method of Table 5 (§6.4)"
    key, column, id = _named(f"DFN-MR{number}", end), end or "C10", f"mr{number}-beats-others-{DATASETS[end]}"
    return beats_best(id, key, "dfn/table5", column, lambda r: "(ours)" not in r["method"], text)


def _named(name: str, end: str) -> str:
    return name + (f" {end}" if end else "")


TABLE5 = Experiment(
    name="dfn/table5",
    place="Table 5",
    shows="the errors of DFN-MR1 (narrow and deep), DFN-MR2 (wide) and DFN-MR3 (wide and deep)",
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
        better(
            "wide-beats-deep",
            "DFN-MR2",
            "DFN-MR1",
            "the wide, less deep net (DFN-MR2) has a lower error than the narrow, deep net (DFN-MR1)",
        ),
        better(
            "deeper-of-the-wide-is-better",
            "DFN-MR3",
            "DFN-MR2",
            "the deeper one of the two wide nets (DFN-MR3) has a lower error",
        ),
        _beats(3, "", "CIFAR-10"),
        _beats(3, "C100", "CIFAR-100"),
        _beats(2, "SVHN", "SVHN"),
        counted(
            "fewer-parameters-than-densenet",
            "DFN-MR3 has fewer parameters than DenseNet, and DFN-MR2 has about half as many (§6.4; read here: less "
            "than 60%)",
            lambda m: min(27.2 - m["DFN-MR3 params"], 0.6 * 27.2 - m["DFN-MR2 params"]),
            "M",
            "smaller of two differences: DenseNet's printed 27.2M minus DFN-MR3, and 60% of 27.2M minus DFN-MR2",
        ),
        counted(
            "parameters-as-printed",
            "DFN-MR1, DFN-MR2 and DFN-MR3 have 1.7M, 14.9M and 24.8M parameters",
            lambda m: 0.06 - max(abs(m[f"DFN-MR{n} params"] - p) for n, p in ((1, 1.7), (2, 14.9), (3, 24.8))),
            "M",
            "0.06 minus the largest difference between a counted and a printed number",
        ),
    ),
    figure=bars([_named(n, end) for end in DATASETS for n in ROW5]),
    notes=("The authors' released code also gives DFN-MR3 24.15M parameters, not the printed 24.8M.",),
)

EXPERIMENTS = (TABLE4, TABLE5, FIGURE12)
