"""CrescendoNet (Zhang et al. 2017): Tables I and II, Figures 3 and 4, path-wise memory."""

from __future__ import annotations

from polypath.families.crescendonet import TABLE_II, CrescendoNet
from polypath.reproduce.claims import better, ordered, trend
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import bars
from polypath.reproduce.measure import paths, per_arm
from polypath.reproduce.scales import at_scales, paper, small, smoke
from polypath.training.path_objectives import DropPath

TINY = CrescendoNet(widths=(6, 6), hidden=(16,))
SMALL = CrescendoNet(widths=(16, 32, 32))
WIDTHS_SAY = "widths (16, 32, 32) instead of (128, 256, 512), no dropout, drop-path 0.3"
SUBNETS = ("whole", *(f"branches={text}" for text in TABLE_II))


def _branches(key: str) -> list[int]:
    return [1, 2, 3, 4] if key == "whole" else [int(n) for n in key.partition("=")[2].split(",")]


TABLE2 = Experiment(
    name="crescendonet/table2",
    place="Table II",
    shows="what sub-networks err that keep only some branches of every block (printed: C10+)",
    scales=at_scales(
        lambda: {"whole": smoke(TINY, DropPath(rate=0.3))},
        lambda: {"whole": small(SMALL, DropPath(rate=0.3), data__train_images=4000, epochs=8)},
        lambda: {"whole": paper("crescendonet_512-cifar10+-adam")},
        small_seeds=4,
        small_says=(WIDTHS_SAY,),
    ),
    measure=per_arm(paths(SUBNETS), single=True),
    published={key: Cell("table2", "C10+", branches=_branches(key)) for key in SUBNETS},
    claims=(
        better("whole", "branches=4", "the whole network errs less than its longest branch alone (§III-D)"),
        better("whole", "branches=4", "it errs less by more than 2 points (printed: 3.15)", by=2.0),
        ordered([f"branches={n}" for n in "4321"], "of single branches, each longer one errs less (§III-D)"),
        better("branches=3,4", "branches=4", "two branches err less than the longer of them"),
        better("branches=2,3,4", "branches=3,4", "three branches err less than the two longest"),
        better("branches=2,4", "branches=1,2,4", "adding branch 1 to {2, 4} makes it worse (Fig. 4's first drop)"),
        better("branches=2,3", "branches=1,2,3", "adding branch 1 to {2, 3} makes it worse (Fig. 4's second drop)"),
        trend(["branches=1", "branches=1,2", "branches=1,2,3", "whole"], "error falls as branches are added in turn"),
    ),
    figure=bars(SUBNETS),
)

EXPERIMENTS = (TABLE2,)
