"""CrescendoNet (Zhang et al. 2017): Tables I and II, Figures 3 and 4, cost, path-wise memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from polypath.families.crescendonet import TABLE_II, CrescendoNet
from polypath.profiling.cost import cost
from polypath.reproduce.claims import Claim, above, better, close, contradicted, counted, ordered, trend
from polypath.reproduce.experiment import Cell, Experiment, Scale
from polypath.reproduce.figures import against, bars, grouped_bars, lines
from polypath.reproduce.measure import costs, error_along_training, paths, per_arm, whole
from polypath.reproduce.measured import Measured
from polypath.reproduce.memory import gradients_by_phase, held_by_phase
from polypath.reproduce.papers.rows import SETTING, beats_printed, published_setting
from polypath.reproduce.papers.shapes import shapes
from polypath.reproduce.published import value
from polypath.reproduce.scales import at_scales, exact_scales, medium, paper, small, smoke, vary
from polypath.reproduce.trained import Trained
from polypath.training.objectives import Whole
from polypath.training.path_objectives import DropPath, PathWise
from polypath.training.recipe import Recipe
from polypath.training.recipes.small import ADAM

DROP = DropPath(rate=0.3)
TINY = CrescendoNet(widths=(6, 6), hidden=(16,))
GROWING = replace(TINY, widths=(6, 8), growing=True)
SMALL = CrescendoNet(widths=(16, 32, 32))
WIDTHS_SAY = "widths (16, 32, 32) instead of (128, 256, 512), no dropout, drop-path 0.3"
SUBNETS = ("whole", *(f"branches={text}" for text in TABLE_II))


def _branches(key: str) -> list[int]:
    return [1, 2, 3, 4] if key == "whole" else [int(n) for n in key.partition("=")[2].split(",")]


# --- Table I ----------------------------------------------------------------------------------------------

ROWS: dict[str, tuple[str, str]] = {
    "Nesterov (128, 128, 128)": ("crescendonet_128", ""),
    "Nesterov (128, 256, 512)-W": ("crescendonet_512w", ""),
    "Nesterov (128, 256, 512)": ("crescendonet_512", ""),
    "Nesterov without drop-path": ("crescendonet_512", "-nodroppath"),
    "Adam (128, 128, 128)": ("crescendonet_128", "-adam"),
    "Adam (128, 256, 512)": ("crescendonet_512", "-adam"),
    "Adam without drop-path": ("crescendonet_512", "-adam-nodroppath"),
    "Adam path-wise training": ("crescendonet_512", "-adam-pathwise"),
}
"""The rows of the paper's own networks in Table I: the model, and the suffix after the dataset in the recipe's name."""
COLUMNS = {"C10": "cifar10", "C10+": "cifar10+", "C100": "cifar100", "C100+": "cifar100+", "SVHN": "svhn"}


def _table_1(base: Recipe, narrow: CrescendoNet, wide: CrescendoNet, growing: CrescendoNet) -> dict[str, Recipe]:
    """Return a recipe for each row of Table I, with the row's network and objective. Other fields are those of
    ``base``."""
    nets = {"crescendonet_128": narrow, "crescendonet_512w": growing, "crescendonet_512": wide}
    arms = {}
    for row, (model, suffix) in ROWS.items():
        objective = Whole() if "nodroppath" in suffix else PathWise(rate=0.3) if "pathwise" in suffix else DROP
        more = {"optim": ADAM} if "adam" in suffix else {}
        more |= {"epochs": 2 * base.epochs} if "pathwise" in suffix else {}
        arms[f"{row} C10+"] = vary(base, model=nets[model], objective=objective, **more)
    return arms


AGAINST = {
    "nesterov-width-by-width-svhn": "in Table I, the error is 1.90 for both (128, 128, 128) and (128, 256, 512)-W",
    "wider-is-better-adam-svhn": "in Table I, the error is 1.76 for (128, 256, 512), but 1.73 for (128, 128, 128)",
    "beats-stochastic-depth-svhn": "in Table I, the error is 1.78 for CrescendoNet, but 1.75 for stochastic depth",
    "beats-fractalnet-c10+": "in Table I, the error is 5.03 for CrescendoNet, but 4.60 for FractalNet",
}
"""Claims about Table I that the table's numbers contradict, by claim id."""


def _beside(id: str, method: str, c: str, text: str) -> Claim:
    """Return the claim that the widest network, trained with Nesterov momentum, beats another method's printed
    number."""
    number = value("crescendonet", "table1", c, method=method)
    assert isinstance(number, float)
    name = method.partition(" (")[0]
    return beats_printed(id, f"Nesterov (128, 256, 512) {c}", number, name, f"{c}: CrescendoNet {text} (§III-C)")


def _adam(c: str) -> Claim:
    """Return the claim of §III-C: Adam "performs similarly on CIFAR10 and SVHN, but worse on CIFAR100"."""
    nesterov, adam = f"Nesterov (128, 256, 512) {c}", f"Adam (128, 256, 512) {c}"
    if c.startswith("C100"):
        return better(f"adam-is-worse-{c.lower()}", nesterov, adam, f"{c}: Adam is worse than Nesterov (§III-C)")
    text = f"{c}: Adam performs similarly to Nesterov (§III-C; read here: within half a point)"
    return close(f"adam-is-similar-{c.lower()}", nesterov, adam, 0.5, text)


def _table_1_claims(c: str) -> list[Claim]:
    low, nesterov, adam = c.lower(), f"Nesterov (128, 256, 512) {c}", f"Adam (128, 256, 512) {c}"
    narrow, growing = f"Nesterov (128, 128, 128) {c}", f"Nesterov (128, 256, 512)-W {c}"
    without = {kind: f"{kind} without drop-path {c}" for kind in ("Nesterov", "Adam")}
    claims = [
        better(
            f"drop-path-helps-nesterov-{low}", nesterov, without["Nesterov"], f"{c}: with Nesterov, drop-path helps"
        ),
        better(f"drop-path-helps-adam-{low}", adam, without["Adam"], f"{c}: with Adam, drop-path helps"),
        better(
            f"wider-is-better-nesterov-{low}", nesterov, narrow, f"{c}: with Nesterov, the wider net has a lower error"
        ),
        ordered(
            f"nesterov-width-by-width-{low}",
            [nesterov, growing, narrow],
            f"{c}: with Nesterov, the performance of three widths grows with the number of feature maps",
        ),
        better(
            f"wider-is-better-adam-{low}",
            adam,
            f"Adam (128, 128, 128) {c}",
            f"{c}: with Adam, the wider net has a lower error",
        ),
        better(
            f"path-wise-costs-accuracy-{low}",
            adam,
            f"Adam path-wise training {c}",
            f"{c}: path-wise training lowers the accuracy",
        ),
        _adam(c),
        _beside(f"beats-resnet-{low}", "ResNet", c, "outperforms the original ResNet"),
        _beside(f"beats-stochastic-depth-{low}", "Stochastic Depth", c, "outperforms ResNet with stochastic depth"),
        _beside(
            f"beats-fractalnet-{low}", "FractalNet (dropout+drop-path)", c, "has a higher accuracy than FractalNet"
        ),
    ]
    if c == "SVHN":
        key = f"Adam (128, 128, 128) {c}"
        claims.append(
            Claim(
                "small-net-matches-densenet-bc-svhn",
                "SVHN: with 4.1M parameters, CrescendoNet can match DenseNet-BC (abstract; read here: its error is at "
                "most 0.1 points above DenseNet-BC's printed 1.74)",
                lambda m: m[f"{key}{SETTING}"] * 1.84 - m[key],
                says=f"1.84 minus error of `{key}`",
            )
        )
    return [contradicted(claim, AGAINST[claim.id]) if claim.id in AGAINST else claim for claim in claims]


TABLE1 = Experiment(
    name="crescendonet/table1",
    place="Table I, own rows",
    shows="the errors of whole networks: three widths, two optimisers, with and without drop-path, trained path-wise",
    scales=at_scales(
        lambda: _table_1(smoke(TINY), *(replace(m, in_chans=1) for m in (TINY, replace(TINY, widths=(6, 8)), GROWING))),
        lambda: _table_1(
            small(SMALL, data__train_images=4000, epochs=8),
            CrescendoNet(widths=(16, 16, 16)),
            CrescendoNet(widths=(16, 32, 64)),
            CrescendoNet(widths=(16, 32, 64), growing=True),
        ),
        lambda: {
            f"{row} {column}": paper(f"{model}-{dataset}{suffix}")
            for row, (model, suffix) in ROWS.items()
            for column, dataset in COLUMNS.items()
        },
        small_says=(
            "an eighth of the widths: (16, 16, 16) and (16, 32, 64); no dropout",
            "only the column C10+, since CIFAR-100 and SVHN are not available here",
        ),
    ),
    measure=per_arm(whole, published_setting),
    units={"loss": "nats, last epoch of training"},
    published={
        f"{row} {column}": Cell("table1", column, group=f"CrescendoNet {row.split()[0]}", method=row.split(" ", 1)[1])
        for row in ROWS
        for column in COLUMNS
    },
    claims=tuple(claim for c in COLUMNS for claim in _table_1_claims(c)),
    notes=("The numbers of other methods are from Table I.",),
)

# --- Table II ---------------------------------------------------------------------------------------------

DROPS = (
    better(
        "branch-1-hurts-2-and-4",
        "branches=2,4",
        "branches=1,2,4",
        "adding branch 1 to branches 2 and 4 raises the error (the first drop in Fig. 4)",
    ),
    better(
        "branch-1-hurts-2-and-3",
        "branches=2,3",
        "branches=1,2,3",
        "adding branch 1 to branches 2 and 3 raises the error (the second drop in Fig. 4)",
    ),
)


def _medium() -> Recipe:
    """Return the recipe for Table II and Figures 3 and 4 at ``medium``, with a checkpoint at every epoch."""
    base = paper("crescendonet_128-cifar10+-adam")
    return medium(base, 6, model__widths=(64, 64, 64), optim__lr=0.002, keep=6)


def path_wise_at_medium() -> Scale:
    """Return a scale that compares path-wise training with training of the whole network. Both have half of the width,
    and path-wise training has twice the epochs."""
    half = {"model__widths": (64, 128, 256), "optim__lr": 0.002}
    arms = {
        "Adam (128, 256, 512) C10+": medium(paper("crescendonet_512-cifar10+-adam"), 6, **half),
        "Adam path-wise training C10+": medium(paper("crescendonet_512-cifar10+-adam-pathwise"), 12, **half),
    }
    return Scale(arms=arms, both_lengths=True)


MEDIUM_SAYS = (
    "half of the widths (128, 128, 128) of Table I; Table II has (128, 256, 512)",
    "Adam's learning rate rises to 0.002 and falls to 0",
)
ONE_NET = at_scales(
    lambda: {"whole": smoke(TINY, DROP)},
    lambda: {"whole": small(SMALL, DROP, data__train_images=4000, epochs=8)},
    lambda: {"whole": paper("crescendonet_512-cifar10+-adam")},
    lambda: {"whole": _medium()},
    small_seeds=4,
    small_says=(WIDTHS_SAY,),
    medium_says=MEDIUM_SAYS,
)

EVERY_SUBSET = "the entire network outperforms every subset of its branches (§I)"
AGAINST_2 = {
    ("longer-branches-are-better", "C100"): "in Table II, the error is 38.26 for {3}, but 38.66 for {4}",
    ("longer-branches-are-better", "SVHN"): "in Table II, the error is 2.43 for {3}, but 2.53 for {4}",
    ("whole-beats-every-subset", "C100"): "in Table II, the error is 29.90 for {2, 3, 4}, but 30.00 for the whole net",
}
"""Claims about Table II that one of its columns contradicts, by claim id and column."""


def _every_subset(m: Mapping[str, float]) -> float:
    """Return the smallest error of a subset minus the whole network's error. This is measured only at the published
    setting: the printed gap is a tenth of a point, which small runs cannot resolve."""
    whole = m["whole"] * m[f"whole{SETTING}"]
    return np.min([m[key] - whole for key in SUBNETS[1:]], axis=0)


def _table_2_claims(column: str) -> list[Claim]:
    claims = [
        better(
            "whole-beats-longest-branch",
            "whole",
            "branches=4",
            "the whole network has a lower error than its longest branch alone (§III-D)",
        ),
        ordered(
            "longer-branches-are-better",
            [f"branches={n}" for n in "4321"],
            "among single branches, each longer branch has a lower error (§III-D)",
        ),
        better(
            "two-branches-beat-the-longer",
            "branches=3,4",
            "branches=4",
            "branches 3 and 4 together have a lower error than branch 4 alone",
        ),
        better(
            "three-branches-beat-the-two-longest",
            "branches=2,3,4",
            "branches=3,4",
            "branches 2, 3 and 4 together have a lower error than branches 3 and 4",
        ),
        trend(
            "error-falls-as-branches-are-added",
            ["branches=1", "branches=1,2", "branches=1,2,3", "whole"],
            "the error falls as branches 1, 2, 3 and 4 are added one after the other",
        ),
        Claim(
            "whole-beats-every-subset",
            EVERY_SUBSET,
            _every_subset,
            says="smallest error of a subset of branches minus error of `whole`",
        ),
    ]
    return [contradicted(c, AGAINST_2[c.id, column]) if (c.id, column) in AGAINST_2 else c for c in claims]


def _table_2(column: str, name: str, *more: Claim) -> Experiment:
    """Return the experiment for one column of Table II. CIFAR-10 with augmentation also has the scales ``small`` and
    ``medium``."""
    scales = ONE_NET
    if name != "table2":
        scales = {"smoke": ONE_NET["smoke"], "paper": lambda: Scale(arms={"whole": paper(_adam_recipe(column))})}
    return Experiment(
        name=f"crescendonet/{name}",
        place="Table II" if name == "table2" else f"Table II, {column}",
        shows=f"the errors of sub-networks that keep only some branches of every block (printed numbers: {column})",
        scales=scales,
        measure=per_arm(paths(SUBNETS), published_setting, single=True),
        published={key: Cell("table2", column, branches=_branches(key)) for key in SUBNETS},
        claims=(*_table_2_claims(column), *more),
        figure=bars(SUBNETS),
    )


def _adam_recipe(column: str) -> str:
    return f"crescendonet_512-{COLUMNS[column]}-adam"


TABLE2 = _table_2(
    "C10+",
    "table2",
    better(
        "whole-beats-longest-branch-by-2",
        "whole",
        "branches=4",
        "the whole network's error is more than 2 points below that of its longest branch alone (printed: 3.15)",
        by=2.0,
    ),
    *DROPS,
)
OTHER_COLUMNS = tuple(_table_2(column, f"table2-{column.lower()}") for column in COLUMNS if column != "C10+")

# --- Figures 3 and 4 --------------------------------------------------------------------------------------

FIG3_SUBNETS = ("whole", "branches=2,3,4", "branches=3,4", "branches=1,2", *(f"branches={n}" for n in "4321"))


def _rises_with_the_whole(run: Trained) -> Measured:
    """Measure the errors of sub-networks along training and, for each, the correlation with the whole network's error
    over the epochs."""
    import numpy as np

    found = error_along_training(FIG3_SUBNETS)(run)
    error = {key: np.array([y for _, y in line]) for key, line in found.curves.items()}
    found.values = {
        f"{key} goes with whole": float(np.corrcoef(error[key], error["whole"])[0, 1]) if np.ptp(error[key]) else 0.0
        for key in FIG3_SUBNETS[1:]
    }
    return found.update(Measured(run.correct(FIG3_SUBNETS)))


FIGURE3 = Experiment(
    name="crescendonet/figure3",
    place="Fig. 3",
    shows="the errors of sub-networks during the training of the whole network",
    scales=at_scales(
        lambda: {"whole": smoke(TINY, DROP, epochs=2, checkpoint_every=1, keep=2)},
        lambda: {"whole": small(SMALL, DROP, data__train_images=4000, epochs=8, checkpoint_every=1, keep=8)},
        lambda: {"whole": vary(paper("crescendonet_512-cifar10-adam-figure3"), checkpoint_every=10, keep=45)},
        lambda: {"whole": _medium()},
        small_says=(WIDTHS_SAY, "8 epochs instead of 450, with a point for each"),
        medium_says=(*MEDIUM_SAYS, "a point per epoch; with augmentation, unlike Figure 3"),
        paper_says=("a point every ten epochs",),
    ),
    measure=per_arm(_rises_with_the_whole, single=True),
    units={"goes with whole": "correlation over epochs"},
    claims=(
        *(
            above(
                f"branch-{n}-falls-with-the-whole",
                f"branches={n} goes with whole",
                0.5,
                f"the error of branch {n} falls together with the whole network's (read here: correlation over 0.5)",
                "",
                says=f"correlation, over the epochs, of the errors of `branches={n}` and `whole`, minus 0.5",
            )
            for n in "4321"
        ),
        *(
            better(
                f"whole-beats-branch-{n}",
                "whole",
                f"branches={n}",
                f"at the end of training, the whole network has a lower error than branch {n}",
            )
            for n in "4321"
        ),
    ),
    figure=lines(FIG3_SUBNETS),
)

FIGURE4 = Experiment(
    name="crescendonet/figure4",
    place="Fig. 4",
    shows="the accuracy of sub-networks against their parameters and MACs",
    scales=ONE_NET,
    measure=per_arm(paths(SUBNETS), costs(SUBNETS), single=True),
    units={"params": "M", "MACs": "M"},
    published={key: Cell("table2", "C10+", branches=_branches(key)) for key in SUBNETS},
    claims=(
        trend(
            "error-falls-with-cost",
            SUBNETS,
            "on average, the error of sub-networks falls with their cost",
            at=[sum(_branches(key)) for key in SUBNETS],
            along="over the number of convs in a block",
        ),
        *DROPS,
    ),
    figure=against({"parameters": (" params", "millions"), "MACs of one image": (" MACs", "millions")}, SUBNETS),
)


def _share_of_cost(scale: str) -> Mapping[str, float]:
    """Count the MACs of sub-networks of the (128, 256, 512) network, as shares of the whole network's MACs."""
    net = shapes(CrescendoNet(widths=(128, 256, 512), final_map=4))
    macs = {key: cost(net, key).macs for key in SUBNETS}
    return {f"{key} share of MACs": macs[key] / macs["whole"] for key in SUBNETS[1:]}


COST = Experiment(
    name="crescendonet/cost",
    place="§I",
    shows="the exact cost of sub-networks of the network with widths (128, 256, 512), without training",
    scales=exact_scales("none, since the counts are those of the published networks"),
    counts=_share_of_cost,
    units={" MACs": "of the whole network's"},
    claims=(
        counted(
            "one-fourth-of-the-cost",
            "branches 1 and 2, which reach an accuracy of 91.31%, need only one-fourth of the computation (§I)",
            lambda m: 0.255 - m["branches=1,2 share of MACs"],
            says="0.255 (which rounds to one-fourth) minus the share of MACs",
        ),
    ),
    figure=bars([f"{key} share of MACs" for key in SUBNETS[1:]], "MACs as a share of the whole network's"),
)

# --- path-wise memory -------------------------------------------------------------------------------------


def _memory(scale: str) -> Mapping[str, float]:
    """Count the shares of memory in the whole network and in one block of equal convs. The paper's numbers are about
    such a block."""
    tiny = scale == "smoke"
    net = (TINY if tiny else CrescendoNet(widths=(128, 256, 512), final_map=4)).build(seed=0)
    block = gradients_by_phase(shapes(TINY if tiny else CrescendoNet()), "block2.")
    whole = held_by_phase(net, size=16 if tiny else 32, batch=2 if tiny else 4)
    return {f"a block, {key}": share for key, share in block.items()} | whole


def _at_most(id: str, what: str, share: float, text: str, *, average: bool = False) -> Claim:
    keys = [f"branch {n}: {what}" for n in (1, 2, 3, 4)]

    def statistic(counts: Mapping[str, float]) -> float:
        shares = [counts[key] for key in keys]
        return share - (sum(shares) / len(shares) if average else max(shares))

    says = f"{share:g} minus the {'average' if average else 'largest'} share of the four phases"
    return counted(id, text, statistic, says=says)


MEMORY = Experiment(
    name="crescendonet/memory",
    place="§I and §II-B",
    shows="the memory of path-wise training, as a share of the memory for training the whole network",
    scales=exact_scales("a tiny network"),
    counts=_memory,
    units={"": "of whole-net training"},
    published={
        "a block, branch 4: gradients": Cell(
            "prose", "value", quantity="path-wise training: upper bound of gradient memory, fraction"
        )
    },
    claims=(
        counted(
            "block-gradients-at-most-40-percent",
            "in path-wise training of a block of four branches, gradients and momentum take at most about 40% of the "
            "memory that they take when the whole block is trained (§II-B)",
            lambda m: 0.405 - m["a block, branch 4: gradients"],
            says="0.405 minus the share of the longest branch, which has four of ten convs",
        ),
        _at_most(
            "gradients-average-a-fourth",
            "gradients",
            0.255,
            "averaged over the phases of path-wise training, gradients and momentum take about a fourth of the memory "
            "that they take when the whole network is trained (§I); this is so for any four branches, since their "
            "shares sum to 1",
            average=True,
        ),
        _at_most(
            "truncated-activations-at-most-half",
            "activations, truncated",
            0.5,
            "in path-wise training, activations take at most about 40% of the memory that they take when the whole "
            "network is trained, if frozen branches run without gradients (read here: at most 50%, since the "
            "activations of joins and pools count, too)",
        ),
        _at_most(
            "exact-activations-at-most-half",
            "activations, exact",
            0.5,
            "in path-wise training, activations take at most about 40% of the memory that they take when the whole "
            "network is trained, even if gradients flow through frozen branches (read here: at most 50%)",
        ),
    ),
    figure=grouped_bars(
        {f"branch {n}": f"branch {n}: " for n in (1, 2, 3, 4)},
        {
            "gradients": "gradients",
            "activations, exact": "activations, exact",
            "activations, truncated": "activations, truncated",
        },
        "share of whole-net training",
    ),
    notes=(
        "The rows *a block* are for a block with convs of equal width, which the paper's 40% assumes. In the network "
        "with widths (128, 256, 512), the first conv of each branch is smaller than the others. So, the longest branch "
        "has more than four tenths of the weights.",
    ),
)

EXPERIMENTS = (TABLE1, TABLE2, *OTHER_COLUMNS, FIGURE3, FIGURE4, COST, MEMORY)
