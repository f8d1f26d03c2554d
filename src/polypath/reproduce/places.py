"""The tables and figures of the five papers, the cells about the papers' own systems, and the reasons why some cells
have no experiment. :mod:`polypath.reproduce.coverage` makes a page from these lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Place(NamedTuple):
    """A table or figure, with the names of its experiments (without the paper's name) or the reason why it has none."""

    label: str
    shows: str
    experiments: tuple[str, ...] = ()
    reason: str = ""


class Printed(NamedTuple):
    """A printed table.

    Attributes:
        table: its name in ``published.json``.
        label: its name in the paper.
        names: the columns that identify a row.
        columns: the columns with numbers of the paper's own systems.
        own: a function that returns whether a row is about one of these systems.
    """

    table: str
    label: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    own: Callable[[Row], bool] = lambda row: True


class Reason(NamedTuple):
    """A reason why cells of a table have no experiment. ``of`` returns whether the reason applies to a row and a
    column."""

    paper: str
    table: str
    of: Callable[[Row, str], bool]
    text: str


SETTINGS = ("C10", "C10+", "C100", "C100+", "SVHN")


def _drawn(label: str, shows: str, where: str) -> Place:
    return Place(label, shows, reason=f"none, it is a drawing; see {where}")


PLACES: dict[str, tuple[Place, ...]] = {
    "crescendonet": (
        _drawn("Fig. 1", "the architecture", "`families/crescendonet.py`"),
        _drawn("Fig. 2", "path-wise training", "`training/pathwise.py`"),
        Place("Fig. 3", "error of sub-networks during training", ("figure3",)),
        Place("Fig. 4", "accuracy against parameters and FLOPs", ("figure4", "cost")),
        Place("Table I", "whole networks and other methods", ("table1",)),
        Place(
            "Table II",
            "error of sub-networks",
            ("table2", "table2-c10", "table2-c100", "table2-c100+", "table2-svhn"),
        ),
        Place("§II-B", "memory of path-wise training", ("memory",)),
    ),
    "fractalnet": (
        _drawn("Fig. 1", "the expansion rule", "`families/fractalnet.py`"),
        _drawn("Fig. 2", "drop-path", "`training/sampling.py`"),
        Place("Fig. 3", "columns during training", ("figure3",)),
        Place("Table 1", "CIFAR and SVHN", ("table1", "suspects")),
        Place("Table 2", "ImageNet (numbers lost)", ("table2",)),
        Place("Table 3", "ultra-deep nets (numbers lost)", ("table3",)),
        Place("Table 4", "a column as student (numbers lost)", ("table4",)),
        Place("§5", "anytime answers", ("anytime",)),
    ),
    "dfn": (
        _drawn("Fig. 1", "a fused net, its expansion, an ensemble", "`core/expansion.py`"),
        Place("Fig. 2", "fused nets, ensembles and plain nets (bars lost)", ("fig2",)),
        _drawn("Fig. 3", "N_f3 and N_f6", "`families/fusenet.py`"),
        Place("Fig. 4", "ensemble sizes (bars lost)", ("fig4",)),
        Place("Fig. 5", "with and without the deepest network (bars lost)", ("fig5",)),
        _drawn("Fig. 6", "inception-like and merge-and-run fusion", "`families/fusenet.py`"),
        _drawn("Fig. 7", "example networks", "`families/fusenet.py`"),
        Place("Fig. 8", "curves on ImageNet (lost)", ("table6",)),
        _drawn("Fig. 9", "the ImageNet networks", "`dfn_mr_imagenet`, `fusenet_resnet101_imagenet`"),
        Place(
            "Fig. 10", "DFN1 and DFN2 (lost)",
            reason="none; `dfn1_imagenet` and `dfn2_imagenet` are candidates for these networks",
        ),
        Place("Fig. 11", "depths of component networks (curves lost)", ("fig11",)),
        Place("Fig. 12", "convergence (curves lost)", ("fig12",)),
        Place("Table 1", "component networks of growing depth", ("table1",)),
        Place("Table 2", "weight sharing", ("table2",)),
        Place("Table 3", "leave one out", ("table3",)),
        Place("Table 4", "DFN-IL, DFN-MR and ResNets", ("table4",)),
        Place("Table 5", "comparison with the state of the art", ("table5",)),
        Place("Table 6", "ImageNet, ResNet-101", ("table6",)),
        Place("Table 7", "ImageNet, 50 layers", ("table7",)),
    ),
    "gunn": (
        _drawn("Fig. 1", "cascading and GUNN", "`families/gunn.py`"),
        _drawn("Fig. 2", "simultaneous and gradual updates", "`layers/gunn/layer.py`"),
        Place("Fig. 3", "training dynamics (curves lost)", ("fig3",)),
        _drawn("Fig. 4", "the update unit", "`layers/gunn/layer.py`"),
        Place("Table 1", "GUNN-15 and WideResNet-28-10", ("table1",)),
        Place("Table 2", "GUNN-18 and ResNet-152", ("table2",)),
        Place("Table 3", "CIFAR", ("table3",)),
        Place("Table 4", "ImageNet", ("table4",)),
        Place("Table 5", "ablations", ("table5",)),
        Place("§4", "collapse of neurons", ("collapse",)),
        Place(
            "§4.3", "speed compared with ResNeXt and DenseNet",
            reason="none, but a benchmark: `python -m benchmarks gunn_speed`",
        ),
    ),
    "drnn": (
        _drawn("Figs. 1 to 5", "the recursive block, gates and LVBN (pages lost)", "`families/recursive.py`"),
        Place("Fig. 6", "naive recursion and LVBN during training", ("fig6",)),
        Place("Fig. 7", "statistics of images that gates pass and stop", ("fig7",)),
        Place("Fig. 8", "number of loops that images run", ("fig8",)),
        Place("Fig. 9", "easy and hard images", ("fig9",)),
        Place("Table 1", "CIFAR-10", ("table1", "cost")),
        Place("Table 2", "ImageNet", ("table2", "cost")),
        Place("Table 3", "ablation", ("table3", "cost")),
        Place("§3", "gradients of each loop (pages lost)", ("gradients",)),
        Place("§3, §4.2", "rates of gates", ("gate-rates",)),
    ),
}  # fmt: skip

_DFN = ("resnet", "dfn_il", "dfn_mr")
_DFN4 = ("C10_plain", *(f"{data}_{kind}" for data in ("C10", "C100", "SVHN") for kind in _DFN))
_ROUTES = ("LLL", "RLL", "LRL", "LLR", "RRL", "RLR", "LRR", "RRR")

TABLES: dict[str, tuple[Printed, ...]] = {
    "crescendonet": (
        Printed(
            "table1", "Table I", ("group", "method"), ("params_millions", *SETTINGS),
            lambda r: r["group"].startswith("CrescendoNet"),
        ),
        Printed("table2", "Table II", ("branches",), SETTINGS),
    ),
    "fractalnet": (
        Printed(
            "table1", "Table 1", ("method",),
            ("params_millions", "C10", "C10+", "C10++", "C100", "C100+", "C100++", "SVHN"),
            lambda r: r["method"].startswith("FractalNet"),
        ),
    ),
    "dfn": (
        Printed("table1", "Table 1", ("depth",), (*_ROUTES, "dfn_tandem_ensemble", "conventional_ensemble")),
        Printed("table2", "Table 2", ("depth", "weight_sharing"), (*_ROUTES, "overall")),
        Printed("table3", "Table 3", ("depth",), (*(f"without_{r}" for r in _ROUTES), "overall")),
        Printed("table4", "Table 4", ("depth_plain_resnet", "depth_dfn"), ("params_millions", *_DFN4)),
        Printed(
            "table5", "Table 5", ("method",), ("params_millions", "C10", "C100", "SVHN"),
            lambda r: "(ours)" in r["method"],
        ),
        Printed("table6", "Table 6", ("metric",), ("resnet101_ours", "dfn_mr")),
        Printed("table7", "Table 7", ("metric",), ("resnet50_ours", "dfn1", "dfn2")),
    ),
    "gunn": (
        Printed("table1", "Table 1", ("stage",), ("gunn_15",)),
        Printed("table2", "Table 2", ("stage",), ("gunn_18", "output")),
        Printed("table3", "Table 3", ("method",), ("params_millions", "C10", "C100"), lambda r: "GUNN" in r["group"]),
        Printed("table4", "Table 4", ("method",), ("params_millions", "top1_error", "top5_error"), lambda r: r["ours"]),
        Printed("table5", "Table 5", ("method", "comparison"), ("params_millions", "C10", "C100")),
        Printed("exact_params", "§5.2, §5.3: exact counts", ("model", "dataset"), ("params",)),
    ),
    "drnn": (
        Printed(
            "table1", "Table 1", ("model",), ("C10_error", "params_millions", "gflops"),
            lambda r: r["group"] != 1 or "AIG" in r["model"],
        ),
        Printed("table2", "Table 2", ("model",), ("top1_acc", "top5_acc", "params_millions", "gflops")),
        Printed("table3", "Table 3", ("model", "L", "G", "I"), ("top1_acc", "params_millions", "gflops")),
    ),
}  # fmt: skip


def _column(*names: str) -> Callable[[Row, str], bool]:
    return lambda row, column: column in names


_MODELS = "counted on the network: [models.md](models.md)"
_STAGES = "the architecture, counted in [models.md](models.md) and checked by the family's tests"
_TOP_5 = "training records only the top-1 error"

_COUNTED = {
    "crescendonet": ("table1",),
    "fractalnet": ("table1",),
    "gunn": ("table3", "table4", "table5", "exact_params"),
}


def _stage(row: Row, column: str) -> bool:
    return row["stage"].startswith(("Conv", "Trans"))


def _five(row: Row, column: str) -> bool:
    return row["metric"] == "top5_train_error"


REASONS: tuple[Reason, ...] = (
    *(
        Reason(paper, table, _column("params_millions", "params"), _MODELS)
        for paper, tables in _COUNTED.items()
        for table in tables
    ),
    *(Reason("dfn", table, _five, _TOP_5) for table in ("table6", "table7")),
    *(Reason("gunn", table, _stage, _STAGES) for table in ("table1", "table2")),
    Reason(
        "gunn",
        "table5",
        lambda row, _: row["method"] == "GUNN-15" and row["comparison"] != "residual learning",
        "printed twice, see the row above",
    ),
    Reason(
        "drnn",
        "table2",
        lambda row, _: row["model"].startswith("Stochastic Depth"),
        "another paper's baseline, retrained by the authors; here, `ResNet(survival=0.5)` with objective `drop-path` "
        "and mode `stochastic-depth` trains it",
    ),
)
