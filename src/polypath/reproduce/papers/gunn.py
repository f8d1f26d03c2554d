"""GUNN (Qiao et al. 2018): Tables 1 to 5, Figure 3. The collapse of neurons (§4) is in :mod:`.collapse`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from polypath.core.execute import Trace
from polypath.families.gunn import Gunn
from polypath.families.registry import get_preset
from polypath.families.resnet import ResNet
from polypath.reproduce.claims import better, counted, less
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import bars
from polypath.reproduce.measure import named_whole, per_arm, whole
from polypath.reproduce.measured import Measured
from polypath.reproduce.members import average, snapshot_members
from polypath.reproduce.papers.dfn_imagenet import two_errors
from polypath.reproduce.papers.drawing import training_panels
from polypath.reproduce.papers.quick import EPOCHS, TRACED, quick
from polypath.reproduce.papers.rows import AREAS, beats_best, beats_printed, published_setting
from polypath.reproduce.papers.shapes import millions, shapes
from polypath.reproduce.published import table
from polypath.reproduce.scales import at_scales, medium, paper, smoke
from polypath.reproduce.trained import Trained
from polypath.training.recipe import Recipe
from polypath.training.schedules import ScheduleConfig

TINY = Gunn(channels=(8, 8, 8), segments=(2, 2, 2), stem_width=4, last_width=8)
SMALL = Gunn(channels=(24, 32, 40), segments=(4, 4, 4), stem_width=16, last_width=48)
NARROW = "layers of 24, 32 and 40 channels in 4 segments instead of 240, 300 and 360 in 20, 25 and 30"
BATCH, SIDE = 64, 32


def variant(spec: Gunn, name: str) -> Gunn:
    """Return a variant of ``spec``: ``GUNN``, ``SUNN`` (all segments are updated at once), ``NoRes`` (GUNN without
    residual learning, "+ old value"), or ``plain`` (SUNN without residual learning)."""
    match name:
        case "GUNN":
            return spec
        case "SUNN":
            return replace(spec, order="simultaneous")
        case "NoRes":
            return replace(spec, residual=False)
        case _:
            return replace(spec, residual=False, order="simultaneous")


def tiny_arm(name: str) -> Recipe:
    return smoke(variant(TINY, name), epochs=2, trace_test=True, keep=5)


def small_arm(name: str) -> Recipe:
    """Return a recipe at ``small`` for Table 5, Figure 3 and §4. The network is tested and kept after every epoch."""
    spec = variant(SMALL, name)
    return quick(spec, **TRACED, checkpoint_every=1, keep=EPOCHS)


def medium_arm(name: str) -> Recipe:
    """Return a recipe at ``medium`` for Table 5, Figure 3 and §4: half of the width. The network is tested and kept
    after every epoch."""
    halves = {"model__channels": (120, 150, 180), "model__stem_width": 32, "model__last_width": 180}
    base = medium(paper("gunn15-cifar10"), 4, **halves, trace_test=True, validate_every=1, keep=4)
    assert isinstance(base.model, Gunn)
    return replace(base, model=variant(base.model, name))


HALF = "half of the width: layers of 120, 150 and 180 channels in 20, 25 and 30 segments"


def _cell(table: str, row: str, column: str = "C10", **more) -> Cell:
    return Cell(table, column, method=row, **more)


# --- Table 1: parameters and memory -------------------------------------------------------------------------------

GIGA = 1e9


def training_memory(net: nn.Module, batch: int = BATCH, size: int = SIDE) -> float:
    """Count the GB that a training step in float32 holds after its forward pass: the tensors saved for the backward
    pass, each once, plus weights, gradients and momentum. These bytes are counted from shapes without computing, so the
    workspaces of kernels are not included.

    ``net`` is moved to the meta device and put in training mode.
    """
    net = net.to("meta").train()
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    seen: dict[int, tuple[Tensor, int]] = {}  # by storage; tensors are kept so that no storage is reused

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = (t, storage.nbytes())
        return t

    x = torch.empty(batch, 3, size, size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        held = net(x).sum()
    saved = sum(n for _, n in seen.values())
    del held
    return (saved + 3 * sum(4 * p.numel() for p in net.parameters())) / GIGA


@functools.cache
def memory_and_size() -> dict[str, float]:
    """Count the training memory and the parameters of GUNN-15, its SUNN and WideResNet-28-10 (pytorchcv's, if
    installed)."""
    nets: dict[str, nn.Module] = {name: shapes(get_preset(name).spec) for name in ("gunn15", "sunn15")}
    try:
        from pytorchcv.model_provider import get_model

        with torch.device("meta"):
            nets["WRN-28-10"] = get_model("wrn28_10_cifar10")
    except ImportError:  # the extra "zoo" is not installed
        pass
    names = {"gunn15": "GUNN-15", "sunn15": "SUNN-15"}
    found: dict[str, float] = {}
    for key, net in nets.items():
        name = names.get(key, key)
        found |= {
            f"{name} params": sum(p.numel() for p in net.parameters()) / 1e6,
            f"{name} memory": training_memory(net),
        }
    return found


CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}


def _exact(_: Mapping[str, float]) -> float:
    """Return 0.5 minus the number of networks, of the six in §5, whose parameter count differs from the printed one."""
    wrong = 0
    for row in table("gunn", "exact_params")["rows"]:
        classes = CLASSES[row["dataset"]]
        name = row["model"].lower().replace("gunn-", "gunn").replace("-", "_") + (
            "_imagenet" if classes == 1000 else ""
        )
        net = shapes(replace(get_preset(name).spec, num_classes=classes))
        wrong += sum(p.numel() for p in net.parameters()) != row["params"]
    return 0.5 - wrong


TABLE1 = Experiment(
    name="gunn/table1",
    place="Table 1",
    shows="the error, the parameters and the training memory (batches of 64) of GUNN-15 and WideResNet-28-10",
    scales=at_scales(
        lambda: {"GUNN-15": tiny_arm("GUNN")},
        lambda: {"GUNN-15": small_arm("GUNN")},
        lambda: {"GUNN-15": paper("gunn15-cifar10"), "GUNN-15 C100": paper("gunn15-cifar100")},
        small_says=(NARROW, "parameters and memory are still those of the published networks"),
    ),
    measure=per_arm(whole, published_setting),
    counts=lambda scale: memory_and_size() if scale != "smoke" else {},
    units={" params": "M parameters", " memory": "GB", " loss": "nats"},
    published={
        "GUNN-15": Cell("table1", "gunn_15", stage="error_C10"),
        "GUNN-15 C100": Cell("table1", "gunn_15", stage="error_C100"),
        "GUNN-15 params": Cell("table1", "gunn_15", stage="params_millions"),
        "GUNN-15 memory": Cell("table1", "gunn_15", stage="gpu_memory_GB_at_batch_64"),
        "WRN-28-10 params": Cell("table1", "wide_resnet_28_10", stage="params_millions"),
        "WRN-28-10 memory": Cell("table1", "wide_resnet_28_10", stage="gpu_memory_GB_at_batch_64"),
    },
    claims=(
        counted(
            "six-exact-parameter-counts",
            "all six models have exactly the printed numbers of parameters (§5.2, §5.3)",
            _exact,
            says="0.5 minus the number of models with another number of parameters",
        ),
        counted(
            "fewer-parameters-than-wrn",
            "GUNN-15 has fewer parameters than WRN-28-10",
            lambda m: m["WRN-28-10 params"] - m["GUNN-15 params"],
            "M",
            "parameters of WRN-28-10 minus parameters of GUNN-15",
        ),
        counted(
            "less-memory-than-wrn",
            "GUNN-15 needs less memory in training than WRN-28-10 (printed: 2.485 and 4.903 GB)",
            lambda m: m["WRN-28-10 memory"] - m["GUNN-15 memory"],
            "GB",
            "training memory of WRN-28-10 minus training memory of GUNN-15",
        ),
        counted(
            "conversion-keeps-memory",
            "conversion to GUNN does not affect the memory of training (§3.4; read here: it changes by less than 2%)",
            lambda m: 0.02 * m["SUNN-15 memory"] - abs(m["GUNN-15 memory"] - m["SUNN-15 memory"]),
            "GB",
            "2% of SUNN-15's training memory minus the absolute difference between SUNN-15's and GUNN-15's",
        ),
        beats_printed(
            "beats-wrn-cifar10", "GUNN-15", 4.17, "WRN-28-10", "CIFAR-10: GUNN-15 has a lower error than WRN-28-10"
        ),
        beats_printed(
            "beats-wrn-cifar100",
            "GUNN-15 C100",
            20.50,
            "WRN-28-10",
            "CIFAR-100: GUNN-15 has a lower error than WRN-28-10",
        ),
    ),
    figure=bars(
        ["GUNN-15 memory", "SUNN-15 memory", "WRN-28-10 memory"], "memory of a step of training, batch 64 (GB)"
    ),
    notes=(
        "Memory is computed from the shapes of the tensors that are held after the forward pass. The paper measured it "
        "on four GPUs, including the workspaces of kernels.",
    ),
)


# --- Table 2: ResNet-152 ------------------------------------------------------------------------------------------

_18 = replace(TINY, channels=(8, 8, 8, 8), segments=(2, 2, 2, 2), parallel=False, last_width=0)
_18_SMALL = replace(SMALL, channels=(16, 24, 32, 40), segments=(4, 4, 4, 4), parallel=False, last_width=0)
NARROW_18 = (
    "nets of four layers of 16 to 40 channels (wide: 24 to 60) without the parallel 1×1 conv, on CIFAR-10 images "
    "instead of ImageNet images"
)
STAGES = ("Conv2", "Conv3", "Conv4", "Conv5")


@functools.cache
def beside_resnet_152() -> dict[str, float]:
    """Count the parameters of the published GUNN-18 and of ResNet-152, and the side of the feature maps of GUNN-18's
    layers."""
    gunn = shapes(get_preset("gunn18_imagenet").spec)
    trace = Trace(frozenset(stage.lower() for stage in STAGES))
    gunn(torch.empty(1, 3, 224, 224, device="meta"), trace=trace)
    sides = {f"{stage} side": float(trace.values[stage.lower()].shape[-1]) for stage in STAGES}
    bottlenecks = ResNet(blocks=(3, 8, 36, 3), width=64, block="bottleneck", stem="imagenet", num_classes=1000)
    return {
        "GUNN-18 params": millions(get_preset("gunn18_imagenet").spec),
        "ResNet-152 params": millions(bottlenecks),
    } | sides


TABLE2 = Experiment(
    name="gunn/table2",
    imagenet=True,
    place="Table 2",
    shows="the error, the parameters and the sizes of feature maps of GUNN-18, beside ResNet-152",
    scales=at_scales(
        lambda: {"GUNN-18": smoke(_18)},
        lambda: {"GUNN-18": quick(_18_SMALL)},
        lambda: {"GUNN-18": paper("gunn18-imagenet")},
        small_says=(NARROW_18, "parameters and feature maps are still those of the published network"),
    ),
    measure=per_arm(two_errors, published_setting),
    counts=lambda scale: beside_resnet_152(),
    units={" params": "M parameters", " side": "pixels a side", " training error": "% error"},
    published={
        "GUNN-18": Cell("table2", "gunn_18", stage="error_top1"),
        "GUNN-18 top-5": Cell("table2", "gunn_18", stage="error_top5"),
        "GUNN-18 params": Cell("table2", "gunn_18", stage="params_millions"),
        "ResNet-152 params": Cell("table2", "resnet_152", stage="params_millions"),
    }
    | {f"{stage} side": Cell("table2", "output", stage=f"{stage}*") for stage in STAGES},
    claims=(
        beats_printed(
            "beats-resnet-152-in-top-1", "GUNN-18", 22.2, "ResNet-152",
            "GUNN-18 achieves a better top-1 accuracy than ResNet-152 (Table 2)",
        ),
        beats_printed(
            "beats-resnet-152-in-top-5", "GUNN-18 top-5", 6.2, "ResNet-152",
            "GUNN-18 achieves a better top-5 accuracy than ResNet-152 (Table 2)", "GUNN-18",
        ),
        counted(
            "fewer-parameters-than-resnet-152",
            "GUNN-18 has fewer parameters than ResNet-152 (Table 2)",
            lambda m: m["ResNet-152 params"] - m["GUNN-18 params"],
            "M",
            "parameters of ResNet-152 minus parameters of GUNN-18",
        ),
        counted(
            "maps-as-printed",
            "GUNN-18's layers have feature maps of the printed sizes, 112 to 14 pixels a side (read here: for images "
            "of 224 pixels)",
            lambda m: 0.5 - sum(m[f"{stage} side"] != 112 / 2**i for i, stage in enumerate(STAGES)),
            says="0.5 minus the number of layers with another size",
        ),
    ),
    figure=bars(["GUNN-18", "GUNN-18 top-5"]),
    notes=(
        "Images of 224 pixels give feature maps of 56 pixels after a conv and a pool, which both have stride 2. The "
        "released code also has sizes of 56, 28, 14 and 7.",
    ),
)  # fmt: skip

# --- Table 3: snapshot ensembles ----------------------------------------------------------------------------------


def alone_and_together(trained: Mapping[str, Trained]) -> Measured:
    """Measure which test images each arm classifies correctly. For a run with snapshots, measure the ensemble of all
    snapshots (``ARM``) and the last snapshot."""
    found = Measured()
    for arm, run in trained.items():
        found.update(per_arm(published_setting)({arm: run}))
        if run.recipe.schedule.cycles < 2:
            found.correct |= {arm: run.correct({"whole": run.net.paths("whole")})["whole"]}
            continue
        members = snapshot_members(run)
        found.correct[arm] = run.marked(average(members))
        found.correct[f"{arm}, its last member"] = run.marked(members[list(members)[-1]])
    return found


CYCLES = ScheduleConfig(kind="cyclic-cosine", cycles=3)
TABLE3 = Experiment(
    name="gunn/table3",
    place="Table 3",
    shows="the errors of GUNN-15, GUNN-24 and an ensemble of GUNN-24's snapshots",
    scales=at_scales(
        lambda: {
            "GUNN-15": tiny_arm("GUNN"),
            "GUNN-24": smoke(replace(TINY, stacked=(2,))),
            "GUNN-24 Ensemble": smoke(replace(TINY, stacked=(2,)), epochs=3, schedule=CYCLES),
        },
        lambda: {
            "GUNN-15": small_arm("GUNN"),
            "GUNN-24": quick(replace(SMALL, stacked=(2,))),
            "GUNN-24 Ensemble": quick(replace(SMALL, stacked=(2,)), epochs=3 * EPOCHS, schedule=CYCLES),
        },
        lambda: {
            f"{name}{end}": paper(recipe.format(data))
            for end, data in (("", "cifar10"), (" C100", "cifar100"))
            for name, recipe in (
                ("GUNN-15", "gunn15-{}"),
                ("GUNN-24", "gunn24-{}"),
                ("GUNN-24 Ensemble", "gunn24-{}-snapshots"),
            )
        },
        small_says=(
            NARROW,
            "GUNN-24 has two update units for each segment and is not wider; three snapshots instead of six",
        ),
    ),
    measure=alone_and_together,
    published={
        f"{name}{end}": _cell("table3", name, column)
        for name in ("GUNN-15", "GUNN-24", "GUNN-24 Ensemble")
        for end, column in (("", "C10"), (" C100", "C100"))
    },
    claims=(
        better("gunn-24-beats-15", "GUNN-24", "GUNN-15", "GUNN-24 has a lower error than GUNN-15"),
        better(
            "ensemble-beats-gunn-24",
            "GUNN-24 Ensemble",
            "GUNN-24",
            "an ensemble of GUNN-24's snapshots has a lower error than GUNN-24",
        ),
        better(
            "ensemble-beats-last-snapshot",
            "GUNN-24 Ensemble",
            "GUNN-24 Ensemble, its last member",
            "the ensemble of snapshots has a lower error than its last snapshot alone",
        ),
        *(
            claim
            for end, column, data in (("", "C10", "CIFAR-10"), (" C100", "C100", "CIFAR-100"))
            for claim in (
                beats_best(
                    f"gunn-24-surpasses-all-competitors-{data.lower().replace('-', '')}",
                    f"GUNN-24{end}",
                    "gunn/table3",
                    column,
                    lambda r: "GUNN" not in r["method"],
                    f"{data}: GUNN-24 surpasses all the competing methods",
                ),
                beats_best(
                    f"ensemble-surpasses-snapshot-ensemble-{data.lower().replace('-', '')}",
                    f"GUNN-24 Ensemble{end}",
                    "gunn/table3",
                    column,
                    lambda r: "Snapshot" in r["method"],
                    f"{data}: GUNN achieves the best result in the ensemble test (§6.3)",
                ),
                beats_best(
                    f"gunn-15-surpasses-the-second-group-{data.lower().replace('-', '')}",
                    f"GUNN-15{end}",
                    "gunn/table3",
                    column,
                    lambda r: r["group"] == "second group" and "40-10" not in r["method"],
                    f"{data}: GUNN-15 outperforms all networks of the second group except WRN-40-10",
                ),
            )
        ),
    ),
    figure=bars(),
)


# --- Table 4: ImageNet --------------------------------------------------------------------------------------------

MODELS4 = {"SUNN-18": "sunn18", "GUNN-18": "gunn18", "Wide GUNN-18": "wide_gunn18"}


def _of_18(spec: Gunn, name: str) -> Gunn:
    if name.startswith("Wide"):
        spec = replace(spec, channels=tuple(int(1.5 * n) for n in spec.channels))
    return variant(spec, name.split()[-1].partition("-")[0])


TABLE4 = Experiment(
    name="gunn/table4",
    imagenet=True,
    place="Table 4",
    shows="the errors of SUNN-18, GUNN-18 and Wide GUNN-18 on ImageNet",
    scales=at_scales(
        lambda: {name: smoke(_of_18(_18, name)) for name in MODELS4},
        lambda: {name: quick(_of_18(_18_SMALL, name)) for name in MODELS4},
        lambda: {name: paper(f"{model}-imagenet") for name, model in MODELS4.items()},
        small_says=(NARROW_18,),
    ),
    measure=per_arm(two_errors, published_setting),
    units={" training error": "% error"},
    published={
        f"{name}{end}": _cell("table4", name, column)
        for name in MODELS4
        for end, column in (("", "top1_error"), (" top-5", "top5_error"))
    },
    claims=(
        better("gunn-beats-sunn-in-top-1", "GUNN-18", "SUNN-18", "GUNN-18 has a lower top-1 error than SUNN-18"),
        better(
            "gunn-beats-sunn-in-top-5",
            "GUNN-18 top-5",
            "SUNN-18 top-5",
            "GUNN-18 has a lower top-5 error than SUNN-18",
        ),
        better("wide-beats-narrow", "Wide GUNN-18", "GUNN-18", "Wide GUNN-18 has a lower error than GUNN-18"),
        beats_best(
            "gunn-18-best-of-its-size",
            "GUNN-18",
            "gunn/table4",
            "top1_error",
            lambda r: not r["ours"] and r["params_millions"] < 36,
            "GUNN-18 has a lower error than all other networks of its group, which have up to 33.3M parameters",
        ),
        beats_best(
            "wide-gunn-18-best-of-its-size",
            "Wide GUNN-18",
            "gunn/table4",
            "top1_error",
            lambda r: not r["ours"] and 36 < r["params_millions"] < 100,
            "Wide GUNN-18 has a lower error than all other networks of its group, including SE-ResNeXt-101",
        ),
        beats_printed(
            "wide-gunn-18-beats-se-resnext",
            "Wide GUNN-18",
            20.70,
            "SE-ResNeXt-101",
            "Wide GUNN-18 has a lower top-1 error than SE-ResNeXt-101",
        ),
    ),
    figure=bars([f"{name}{end}" for end in ("", " top-5") for name in MODELS4]),
    notes=("The paper prints top-5 errors of 5.52 for Wide GUNN-18 and 5.01 for SE-ResNeXt-101, but claims nothing.",),
)


# --- Table 5 and Figure 3 -----------------------------------------------------------------------------------------

RECIPES5 = {
    "GUNN-15-NoRes": "gunn15_nores",
    "GUNN-15": "gunn15",
    "SUNN-15": "sunn15",
    "GUNN-24": "gunn24",
    "SUNN-24": "sunn24",
}
ROW15 = {"SUNN-15": "SUNN", "GUNN-15": "GUNN", "GUNN-15-NoRes": "NoRes"}

TABLE5 = Experiment(
    name="gunn/table5",
    place="Table 5",
    shows="the effects of gradual updates (GUNN against SUNN) and of residual learning (GUNN against NoRes)",
    scales=at_scales(
        lambda: {name: tiny_arm(kind) for name, kind in ROW15.items()},
        lambda: {name: small_arm(kind) for name, kind in ROW15.items()},
        lambda: {
            f"{name}{end}": paper(f"{recipe}-{data}")
            for end, data in (("", "cifar10"), (" C100", "cifar100"))
            for name, recipe in RECIPES5.items()
        },
        lambda: {name: medium_arm(kind) for name, kind in ROW15.items() if kind != "NoRes"},
        small_says=(NARROW,),
        medium_says=(HALF, "no network without residual learning"),
    ),
    measure=per_arm(whole),
    units={" loss": "nats"},
    published={
        f"{name}{end}": _cell(
            "table5", name, column, **({"comparison": "residual learning"} if name == "GUNN-15" else {})
        )
        for name in RECIPES5
        for end, column in (("", "C10"), (" C100", "C100"))
    },
    claims=(
        better(
            "gunn-15-beats-sunn-15-cifar10",
            "GUNN-15",
            "SUNN-15",
            "CIFAR-10: GUNN-15 has a lower error than SUNN-15, the network before conversion (§6.3)",
        ),
        better(
            "residual-helps-cifar10",
            "GUNN-15",
            "GUNN-15-NoRes",
            "CIFAR-10: GUNN-15 has a lower error than without residual learning (§6.3)",
        ),
        better(
            "gunn-24-beats-sunn-24-cifar10", "GUNN-24", "SUNN-24", "CIFAR-10: GUNN-24 has a lower error than SUNN-24"
        ),
        better(
            "gunn-15-beats-sunn-15-cifar100",
            "GUNN-15 C100",
            "SUNN-15 C100",
            "CIFAR-100: GUNN-15 has a lower error than SUNN-15",
        ),
        better(
            "residual-helps-cifar100",
            "GUNN-15 C100",
            "GUNN-15-NoRes C100",
            "CIFAR-100: GUNN-15 has a lower error than without residual learning",
        ),
        better(
            "gunn-24-beats-sunn-24-cifar100",
            "GUNN-24 C100",
            "SUNN-24 C100",
            "CIFAR-100: GUNN-24 has a lower error than SUNN-24",
        ),
    ),
    figure=bars(),
)

FIGURE3 = Experiment(
    name="gunn/fig3",
    place="Figure 3",
    shows="the training of a 15-layer network before (SUNN) and after conversion to GUNN",
    scales=at_scales(
        lambda: {name: tiny_arm(ROW15[name]) for name in ("SUNN-15", "GUNN-15")},
        lambda: {name: small_arm(ROW15[name]) for name in ("SUNN-15", "GUNN-15")},
        lambda: {
            name: replace(paper(f"{RECIPES5[name]}-cifar10"), trace_test=True) for name in ("SUNN-15", "GUNN-15")
        },
        lambda: {name: medium_arm(ROW15[name]) for name in ("SUNN-15", "GUNN-15")},
        small_says=(NARROW,),
        medium_says=(HALF,),
    ),
    measure=per_arm(whole, named_whole),
    units={" loss": "nats", " loss area": "nats", " error area": "% error"},
    claims=(
        less(
            "loss-falls-faster", "GUNN-15 loss area", "SUNN-15 loss area",
            "GUNN is easier to train: its training loss falls faster (read here: its mean over the epochs is lower)",
            "nats", says="mean training loss over the epochs: SUNN-15 minus GUNN-15",
        ),
        less(
            "error-falls-faster", "GUNN-15 error area", "SUNN-15 error area",
            "GUNN performs better throughout training: its test error falls faster (read here: its mean over the "
            "epochs is lower)", "points", says="mean test error over the epochs: SUNN-15 minus GUNN-15",
        ),
        better(
            "lower-error-at-the-end", "GUNN-15", "SUNN-15",
            "at the end of training, GUNN-15 has a lower error than SUNN-15",
        ),
    ),
    figure=training_panels({" loss": "training loss (nats)", " error": "test error (%)"}),
    notes=(
        "The figure's curves are missing in our copy of the paper, and its text does not state their numbers.", AREAS,
    ),
)  # fmt: skip

EXPERIMENTS = (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, FIGURE3)
