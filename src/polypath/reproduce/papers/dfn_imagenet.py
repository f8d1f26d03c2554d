"""Deeply-fused nets (Zhao et al. 2016) on ImageNet: Table 6 with Figure 8, Table 7, Figure 11.

The figure that shows DFN1 and DFN2 is missing in our copy of the paper. Our versions are candidates with the properties
that the paper states. Below the published setting, smaller bottleneck networks on CIFAR-10 replace these networks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polypath.analysis.plots.style import COLOURS, MARKERS, canvas
from polypath.core.network import PathNet
from polypath.families.fusenet import InceptionLike, MergeAndRun
from polypath.families.registry import get_preset
from polypath.families.resnet import ResNet
from polypath.profiling.cost import count_paths, depth_distribution
from polypath.reproduce.claims import Claim, better, counted, less
from polypath.reproduce.experiment import Cell, Experiment, Scale
from polypath.reproduce.figures import bars, title
from polypath.reproduce.measure import per_arm, within_five
from polypath.reproduce.measured import Measured
from polypath.reproduce.papers.drawing import training_panels
from polypath.reproduce.papers.quick import TRACED, quick
from polypath.reproduce.papers.shapes import millions, shapes
from polypath.reproduce.scales import at_scales, paper, smoke, traced
from polypath.reproduce.trained import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result

STAND_IN = "bottleneck nets with fewer blocks and fewer feature maps, on CIFAR-10 images instead of ImageNet images"


def two_errors(run: Trained) -> Measured:
    """Measure top-1 and top-5 errors, the last epoch's training error, and curves of training and test error by
    epoch."""
    logits = run.logits(["whole"])["whole"]
    found = Measured({"whole": run.marked(logits), "whole top-5": within_five(run, logits)})
    rows = run.metrics()
    if rows:
        found.values["whole training error"] = rows[-1]["train_error"]
        found.curves["whole training"] = [(r["epoch"], r["train_error"]) for r in rows]
    tested = [(r["epoch"], r["traced_test_error"]) for r in rows if "traced_test_error" in r]
    if tested:
        found.curves["whole test"] = tested
    if middle := [error for epoch, error in tested if 30 <= epoch <= 55]:
        found.values["whole epochs 30 to 55"] = float(np.mean(middle))
    return found


def _built(name: str) -> PathNet:
    return shapes(get_preset(name).spec)


def _params(name: str) -> float:
    return millions(get_preset(name).spec)


def _bottlenecks(kind: str, width: int) -> ResNet | MergeAndRun:
    """Return a network like ResNet-101 with fewer blocks, (2, 2, 6, 2), or one like DFN-MR with half of these
    blocks."""
    if kind == "ResNet-101":
        return ResNet(blocks=(2, 2, 6, 2), width=width, block="bottleneck")
    return MergeAndRun(blocks=(1, 1, 3, 1), width=width, block="bottleneck")


NAMES6 = {"ResNet-101": "fusenet_resnet101_imagenet", "DFN-MR": "dfn_mr_imagenet"}
COLUMNS6 = {"ResNet-101": "resnet101_ours", "DFN-MR": "dfn_mr"}
METRICS = {"": "top1_val_error", " top-5": "top5_val_error", " training error": "top1_train_error"}

TABLE6 = Experiment(
    name="dfn/table6",
    imagenet=True,
    place="Table 6, Figure 8",
    shows="the errors of ResNet-101 and of a DFN-MR with nearly as many parameters",
    scales=at_scales(
        lambda: {kind: smoke(_bottlenecks(kind, 4), trace_test=True) for kind in NAMES6},
        lambda: {kind: quick(_bottlenecks(kind, 8), **TRACED) for kind in NAMES6},
        lambda: {
            "ResNet-101": traced(paper("fusenet_resnet101-imagenet")),
            "DFN-MR": traced(paper("dfn_mr-imagenet")),
        },
        small_says=(STAND_IN, "blocks (2, 2, 6, 2) instead of (3, 4, 23, 3), and (1, 1, 3, 1) instead of (2, 2, 8, 2)"),
    ),
    measure=per_arm(two_errors),
    counts=lambda scale: {f"{kind} params": _params(name) for kind, name in NAMES6.items()},
    units={" params": "M parameters", " training error": "% error", " 55": "% error"},
    published={
        f"{kind}{end}": Cell("table6", column, metric=metric)
        for kind, column in COLUMNS6.items()
        for end, metric in METRICS.items()
    }
    | {f"{kind} params": Cell("table6", column, metric="params_millions") for kind, column in COLUMNS6.items()},
    claims=(
        better(
            "mr-better-in-top-1",
            "DFN-MR",
            "ResNet-101",
            "DFN-MR has a lower top-1 validation error than ResNet-101 (§6.5)",
        ),
        better(
            "mr-better-in-top-5",
            "DFN-MR top-5",
            "ResNet-101 top-5",
            "DFN-MR has a lower top-5 validation error than ResNet-101 (§6.5)",
        ),
        less(
            "mr-better-in-training",
            "DFN-MR training error",
            "ResNet-101 training error",
            "DFN-MR has a lower training error than ResNet-101 (Fig. 8)",
            "points",
        ),
        Claim(
            "mr-lower-from-epoch-30-to-55",
            "from epoch 30 to 55, DFN-MR's validation error is about 5 points below ResNet-101's (read here: more "
            "than 3)",
            lambda m: m["ResNet-101 epochs 30 to 55"] - m["DFN-MR epochs 30 to 55"] - 3.0,
            says="mean validation error from epoch 30 to 55: ResNet-101 minus DFN-MR, minus 3",
        ),
        counted(
            "parameters-as-printed",
            "ResNet-101 and DFN-MR have 44.5M and 43.3M parameters",
            lambda m: 0.06 - max(abs(m["ResNet-101 params"] - 44.5), abs(m["DFN-MR params"] - 43.3)),
            "M",
            "0.06 minus the larger difference between a counted and a printed number",
        ),
    ),
    figure=training_panels({" training": "training error (%)", " test": "validation error (%)"}),
)

# --- Table 7 and Figure 11 ----------------------------------------------------------------------------------------

NAMES7 = {"ResNet-50": "fusenet_resnet50_imagenet", "DFN1": "dfn1_imagenet", "DFN2": "dfn2_imagenet"}
COLUMNS7 = {"ResNet-50": "resnet50_ours", "DFN1": "dfn1", "DFN2": "dfn2"}
CANDIDATES = (
    "Our DFN1 and DFN2 have the properties that the paper states, but may differ from the paper's networks, since "
    "Figure 10, which shows those, is missing in our copy. DFN1 has a separate block in place of each identity, and "
    "DFN2 has a fusion every two blocks.",
)


def _fifty(kind: str, width: int) -> ResNet:
    spec = ResNet(blocks=(2, 2, 3, 2), width=width, block="bottleneck")
    return replace(spec, shallow="block") if kind == "DFN1" else replace(spec, span=2) if kind == "DFN2" else spec


@functools.cache
def _depths(name: str) -> dict[int, int]:
    return depth_distribution(_built(name))


def _summary(depths: Mapping[int, int]) -> tuple[float, float]:
    """Return the mean and the standard deviation of the depths of paths. ``depths`` maps a depth to its number of
    paths."""
    total = sum(depths.values())
    mean = sum(d * n for d, n in depths.items()) / total
    return mean, (sum(n * (d - mean) ** 2 for d, n in depths.items()) / total) ** 0.5


def _ensembles(scale: str) -> dict[str, float]:
    return {f"{kind} paths": count_paths(_built(name)) for kind, name in NAMES7.items()}


TABLE7 = Experiment(
    name="dfn/table7",
    imagenet=True,
    place="Table 7",
    shows="the errors of ResNet-50 and of 50-layer nets with deeper component networks (DFN1) or fewer of them (DFN2)",
    scales=at_scales(
        lambda: {kind: smoke(_fifty(kind, 4)) for kind in NAMES7},
        lambda: {kind: quick(_fifty(kind, 8)) for kind in NAMES7},
        lambda: {kind: paper(f"{name.removesuffix('_imagenet')}-imagenet") for kind, name in NAMES7.items()},
        small_says=(STAND_IN, "blocks (2, 2, 3, 2) instead of (3, 4, 6, 3)"),
    ),
    measure=per_arm(two_errors),
    counts=_ensembles,
    units={" paths": "paths", " training error": "% error"},
    published={
        f"{kind}{end}": Cell("table7", column, metric=metric)
        for kind, column in COLUMNS7.items()
        for end, metric in METRICS.items()
    },
    claims=(
        better(
            "dfn1-below-resnet-50",
            "ResNet-50",
            "DFN1",
            "DFN1 performs worse than ResNet-50, since its component networks are less capable (A.1)",
        ),
        better(
            "dfn2-is-the-poorest",
            "DFN1",
            "DFN2",
            "DFN2 performs the worst, since its ensemble is the smallest (A.1; read here: worse than DFN1)",
        ),
        counted(
            "dfn1-ensemble-as-large-as-resnet-50s",
            "ResNet-50 and DFN1 have equally large ensembles (Eq. 1)",
            lambda m: 0.5 - abs(m["ResNet-50 paths"] - m["DFN1 paths"]),
            "paths",
            "0.5 minus the absolute difference between the numbers of paths",
        ),
        counted(
            "dfn2-ensemble-is-smaller",
            "DFN2 has a smaller ensemble than DFN1 (Eq. 1)",
            lambda m: m["DFN1 paths"] - m["DFN2 paths"],
            "paths",
            "paths of DFN1 minus paths of DFN2",
        ),
    ),
    figure=bars([f"{kind}{end}" for end in ("", " top-5") for kind in NAMES7]),
    notes=CANDIDATES,
)

CIFAR = {
    "ResNet of 110 layers": ResNet(depth=110),
    "DFN-IL of 56": InceptionLike(depth=56),
    "DFN-MR of 56": MergeAndRun(depth=56),
}


@functools.cache
def _cifar_depths(kind: str) -> dict[int, int]:
    return depth_distribution(shapes(CIFAR[kind]))


def _distributions() -> dict[str, dict[int, int]]:
    return {kind: _depths(name) for kind, name in NAMES7.items()} | {kind: _cifar_depths(kind) for kind in CIFAR}


def _depth_counts(scale: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, depths in _distributions().items():
        mean, deviation = _summary(depths)
        found |= {f"{kind}: mean depth": mean, f"{kind}: deviation": deviation}
        found |= {f"{kind}: least depth": min(depths), f"{kind}: greatest depth": max(depths)}
    return found


def _contained(m: Mapping[str, float]) -> float:
    """Return 0.5 minus the number of depths at which DFN2 has more component networks than ResNet-50. DFN2's component
    networks are those of ResNet-50 that run each span of blocks completely or not at all."""
    own, of = _depths(NAMES7["DFN2"]), _depths(NAMES7["ResNet-50"])
    return 0.5 - sum(count > of.get(depth, 0) for depth, count in own.items())


def _two_panels(result: Result) -> Figure:
    figure, axes = canvas(width=10.5, height=4.2, panels=2)
    for axis, kinds in zip(axes, (NAMES7, CIFAR), strict=True):
        for i, kind in enumerate(kinds):
            depths = _distributions()[kind]
            total = sum(depths.values())
            mean, deviation = _summary(depths)
            label = f"{kind} ({mean:.1f} ± {deviation:.1f})"
            shares = [100.0 * n / total for n in depths.values()]
            axis.plot(list(depths), shares, MARKERS[i] + "-", color=COLOURS[i], ms=3.5, lw=1.2, label=label)
        axis.set_xlabel("depth of a component network (layers)")
        axis.set_ylabel("share of the component networks (%)")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_title("ImageNet, Figure 11", fontsize=9)
    axes[1].set_title("CIFAR, one row of Table 4", fontsize=9)
    figure.suptitle(title(result), fontsize=10)
    return figure


_COUNTED = Scale(changes=("none, since the depths are those of the published networks",))

FIGURE11 = Experiment(
    name="dfn/fig11",
    place="Figure 11",
    shows="the exact depths of component networks, without training",
    scales=dict.fromkeys(("smoke", "small", "paper"), lambda: _COUNTED),
    counts=_depth_counts,
    units={" depth": "layers", " deviation": "layers"},
    claims=(
        counted(
            "resnet-50-depths-more-diverse",
            "the depths of ResNet-50's component networks are more diverse than those of DFN1's (A.1)",
            lambda m: m["ResNet-50: deviation"] - m["DFN1: deviation"],
            "layers",
            "standard deviation of the depths: ResNet-50 minus DFN1",
        ),
        counted(
            "dfn1-much-deeper",
            "DFN1's component networks are much deeper than ResNet-50's (A.1; read here: by more than half, on "
            "average)",
            lambda m: m["DFN1: mean depth"] - 1.5 * m["ResNet-50: mean depth"],
            "layers",
            "mean depth of DFN1's component networks minus 1.5 times that of ResNet-50's",
        ),
        counted(
            "dfn1-shallowest-are-deeper",
            "DFN1's shallowest component networks are deeper than ResNet-50's shallowest ones (A.1)",
            lambda m: m["DFN1: least depth"] - m["ResNet-50: least depth"],
            "layers",
            "smallest depth of a component network: DFN1 minus ResNet-50",
        ),
        counted(
            "dfn2-within-resnet-50",
            "all component networks of DFN2 are also component networks of ResNet-50 (A.1)",
            _contained,
            says="0.5 minus the number of depths at which DFN2 has more component networks than ResNet-50",
        ),
        counted(
            "mr-less-deep-than-resnet",
            "the component networks of a merge-and-run net are less deep than those of a ResNet (§5)",
            lambda m: m["ResNet of 110 layers: mean depth"] - m["DFN-MR of 56: mean depth"],
            "layers",
            "mean depth of the component networks: ResNet of 110 layers minus DFN-MR of 56 layers",
        ),
    ),
    figure=_two_panels,
    notes=CANDIDATES,
)

EXPERIMENTS = (TABLE6, TABLE7, FIGURE11)
