"""FractalNet (Larsson et al., ICLR 2017): Tables 1 to 4, the figure of the columns during training, the anytime curve.

Tables 2, 3 and 4 are missing in our copy of the paper. Claims about them are from the running text, and there are no
printed numbers to compare with.
"""

from __future__ import annotations

from dataclasses import replace

from polypath.data.config import AugmentConfig
from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.families.timm_models import TimmModel
from polypath.reproduce.claims import Claim, above, better, close, less
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import against, grouped_bars, lines
from polypath.reproduce.measure import costs, paths, per_arm, whole
from polypath.reproduce.measured import Measured
from polypath.reproduce.papers.rows import beats_printed, published_setting
from polypath.reproduce.published import value
from polypath.reproduce.scales import at_scales, medium, paper, small, smoke, vary
from polypath.reproduce.trained import Trained
from polypath.training.objectives import Whole
from polypath.training.path_objectives import DropPath, OnePath
from polypath.training.recipe import Recipe

MIXED = DropPath(mode="mixed", rate=0.15)
DEEP_FILTERS = (16, 32, 64, 128, 128)
MEDIUM_SAYS = (
    "filters (16, 32, 64, 128, 128) of Table 3; Table 1 has (64, 128, 256, 512, 512); batches of 100",
    "the learning rate rises to 0.05",
)


def medium_20(dataset: str) -> Recipe:
    """Return a recipe at ``medium`` of a 20-layer network: Table 1's recipe for a dataset, with Table 3's filters."""
    base = paper(f"fractalnet20-{dataset}")
    return medium(base, 6, model__filters=DEEP_FILTERS, optim__lr=0.05, batch_size=100)


def _medium_40() -> Recipe:
    """Return the recipe for Tables 3 and 4 and Figure 3 at ``medium``: the 40-layer network at half of its width, with
    a checkpoint at every epoch."""
    halves = tuple(n // 2 for n in DEEP_FILTERS)
    base = paper("fractalnet_ultra_40-cifar100++")
    return medium(base, 4, model__filters=halves, optim__lr=0.05, batch_size=100, keep=4)


HALF_SAYS = (
    "half of the filters, (8, 16, 32, 64, 64); CIFAR-10++ instead of CIFAR-100++; batches of 100",
    "the learning rate rises to 0.05",
)


def _columns(base: Recipe) -> list[str]:
    assert isinstance(base.model, FractalNet)
    return [f"column={c}" for c in range(base.model.columns, 0, -1)]


def _beside_plain(fractal: Recipe) -> dict[str, Recipe]:
    """Return recipes of a fractal network and of each of its columns, which are trained separately from scratch."""
    plain = {f"plain {c}": vary(fractal, objective=OnePath(paths=c)) for c in _columns(fractal)}
    return {"fractal": fractal} | plain


def _deepest_beside_plain(fractal: Recipe) -> dict[str, Recipe]:
    """Return recipes of a fractal network and of its deepest column, which is trained separately from scratch."""
    return {"fractal": fractal, "plain": vary(fractal, objective=OnePath(paths=_columns(fractal)[0]))}


def _columns_and_losses(run: Trained) -> Measured:
    """Measure errors and training losses. For a fractal network, these are of the whole network and of each column,
    with recalibrated batch-norm; for a plain network, of its one path."""
    if isinstance(run.recipe.objective, OnePath):
        chosen, anew = {"whole": run.net.paths(run.recipe.objective.paths)}, 0
    else:
        chosen, anew = run.choice(["whole", *_columns(run.recipe)]), 1000
    losses = run.training_loss(chosen, recalibrated=anew)
    found = run.correct(chosen, recalibrated=anew)
    if anew:
        found |= {f"{key} as it stands": hits for key, hits in run.correct(chosen).items()}
    return Measured(found, {f"{k} loss": v for k, v in losses.items()})


DEEP, PLAIN = "fractal/column=4", "plain column=4"

TABLE4 = Experiment(
    name="fractalnet/table4",
    place="Table 4",
    shows="the errors and training losses of plain nets and of columns that are extracted from a trained fractal net",
    scales=at_scales(
        lambda: _beside_plain(smoke(FractalNet(filters=(4, 4), columns=4), MIXED, batch_size=60)),
        lambda: _beside_plain(
            small(
                FractalNet(filters=(8, 16, 32, 32), columns=4),
                MIXED,
                epochs=6,
                data__train_images=4000,
                data__test_images=4000,
            )
        ),
        lambda: {
            "fractal": paper("fractalnet_ultra_40-cifar100++"),
            **{f"plain column={c}": paper(f"fractalnet_plain_{5 * 2 ** (c - 1)}-cifar100++") for c in (4, 3, 2, 1)},
            **{f"plain {n} layers": paper(f"fractalnet_plain_{n}-cifar100++") for n in (80, 160)},
        },
        lambda: _beside_plain(_medium_40()),
        medium_says=HALF_SAYS,
        small_says=(
            "four blocks of (8, 16, 32, 32) filters and four columns: 32, 16, 8 and 4 layers instead of 40, 20, 10, 5",
            "no dropout; CIFAR-10 instead of CIFAR-100++",
        ),
    ),
    measure=per_arm(_columns_and_losses),
    units={"loss": "nats, training images, no augmentation"},
    claims=(
        better(
            "deepest-column-beats-plain",
            DEEP,
            PLAIN,
            "the deepest column, extracted from the fractal net, has a lower error than a plain net of its depth that "
            "is trained alone",
        ),
        less(
            "deepest-column-loss-below-plain",
            f"{DEEP} loss",
            f"{PLAIN} loss",
            "the deepest column has a lower training loss than a plain net of its depth that is trained alone",
            "nats",
            says=f"training loss of `{PLAIN}` minus training loss of `{DEEP}`",
        ),
        better(
            "deepest-plain-degrades",
            "plain column=3",
            PLAIN,
            "the deepest plain net has a higher error than the plain net of half its depth (degradation)",
        ),
        better(
            "deepest-column-beats-half-depth",
            DEEP,
            "fractal/column=3",
            "the fractal net's deepest column has a lower error than its column of half the depth",
        ),
        better(
            "deepest-column-near-whole",
            DEEP,
            "fractal",
            "the error of the deepest column is at most 2 points above that of the whole fractal net",
            by=-2.0,
        ),
        above(
            "plain-160-fails",
            "plain 160 layers",
            90.0,
            "a plain net of 160 layers completely fails to converge (§4.2; read here: its error on 100 classes is over "
            "90%)",
            says="error of `plain 160 layers` minus 90",
        ),
    ),
    figure=grouped_bars(
        {f"column {c}": f"column={c}" for c in (4, 3, 2, 1)},
        {"column of the fractal net": "fractal/", "plain net of its depth": "plain "},
    ),
    notes=(
        "Batch-norm of the columns is recalibrated on 1,000 training images, except in the rows *as it stands*.",
        "At *small*, six epochs are 480 steps, which are too few for 32 layers. The deepest column ends near chance "
        "(90%), so the comparison is about early training only.",
    ),
)

# --- Table 1 ----------------------------------------------------------------------------------------------

DATASETS = {
    "C10": "cifar10",
    "C10+": "cifar10+",
    "C10++": "cifar10++",
    "C100": "cifar100",
    "C100+": "cifar100+",
    "C100++": "cifar100++",
    "SVHN": "svhn",
}
AUGMENTED = {"C10": AugmentConfig(), "C10+": AugmentConfig(pad=2, mirror=True)}
AUGMENTED["C10++"] = replace(AUGMENTED["C10+"], pad_mode="reflect")
DEEPEST = "FractalNet + drop-path + dropout => deepest column alone"
METHODS = {
    "FractalNet {}": "FractalNet",
    "drop-path {}": "FractalNet + drop-path + dropout",
    "drop-path {}/column=3": DEEPEST,
    "drop-path {} re-estimated": "FractalNet + drop-path + dropout",
    "drop-path {}/column=3 re-estimated": DEEPEST,
}
"""Printed rows by key. The paper does not say which batch-norm statistics a column has, so both keys have the same
number."""


def _with_and_without(full: Recipe) -> dict[str, Recipe]:
    """Return two recipes: ``full`` without its regularisation, and ``full``."""
    return {"FractalNet": vary(full, objective=Whole(), model__dropout=(0.0,)), "drop-path": full}


def _table_1(base: Recipe) -> dict[str, Recipe]:
    """Return two arms for each augmentation: without and with regularisation. ``base`` has regularisation."""
    arms = {}
    for column, augment in AUGMENTED.items():
        both = _with_and_without(vary(base, data__augment=augment))
        arms |= {f"{method} {column}": recipe for method, recipe in both.items()}
    return arms


def _with_deepest(run: Trained) -> Measured:
    """Measure the whole network. If it was trained with drop-path, also measure its deepest column, and the errors of
    both with recalibrated batch-norm."""
    found = run.correct(["whole"])
    if isinstance(run.recipe.objective, DropPath):
        deepest = _columns(run.recipe)[:1]
        found |= run.correct(deepest)
        anew = run.correct(["whole", *deepest], recalibrated=1000)
        found |= {f"{name} re-estimated": hits for name, hits in anew.items()}
    return Measured(found).update(published_setting(run))


def _with_augmentation(plus: str) -> Claim:
    """Return the claim of §4.2 about regularisation: "a boost (CIFAR-10), or does not significantly influence"
    (CIFAR-100)."""
    full, plain = f"drop-path {plus}", f"FractalNet {plus}"
    if plus.startswith("C10+"):
        id = f"regularisation-helps-{plus.lower()}"
        return better(id, full, plain, f"{plus}: drop-path and dropout lower the error")
    text = f"{plus}: drop-path and dropout do not significantly influence the error (read here: within a point)"
    return close(f"regularisation-matters-little-{plus.lower()}", full, plain, 1.0, text)


def _table_1_claims(column: str, plus: str) -> tuple[Claim, ...]:
    plain, full = f"FractalNet {column}", f"drop-path {column}"
    plain_plus, full_plus = f"FractalNet {plus}", f"drop-path {plus}"
    return (
        better(
            f"regularisation-helps-{column.lower()}", full, plain, f"{column}: drop-path and dropout lower the error"
        ),
        _with_augmentation(plus),
        Claim(
            f"regularisation-helps-more-in-{column.lower()}",
            f"{column}: drop-path and dropout help more without augmentation than with it ({plus})",
            lambda m: (m[plain] - m[full]) - (m[plain_plus] - m[full_plus]),
            says="error reduction by drop-path and dropout without augmentation, minus that with augmentation",
        ),
    )


def _near_whole(column: str) -> Claim:
    """Return the claim that the recalibrated deepest column is close to the whole network; on CIFAR-10 it is
    "statistically equivalent" (§4.2)."""
    near = f"drop-path {column}/column=3 re-estimated", f"drop-path {column} re-estimated"
    if column.startswith("C10") and not column.startswith("C100"):
        text = (
            f"{column}: the deepest column is statistically equivalent to the network (read here: within half a point)"
        )
        return close(f"deepest-column-equivalent-{column.lower()}", *near, 0.5, text)
    text = f"{column}: the deepest column is close to the whole network (read here: within 2 points)"
    return close(f"deepest-column-close-{column.lower()}", *near, 2.0, text)


def _beside(id: str, key: str, method: str, column: str, text: str) -> Claim:
    """Return a claim that compares with another method's number for a dataset. The number is from CrescendoNet's Table
    I, since it is missing in our copy of FractalNet's paper."""
    number = value("crescendonet", "table1", column, method=method)
    assert isinstance(number, float)
    return beats_printed(id, f"{key} {column}", number, method, f"{column}: {text}")


def _others() -> list[Claim]:
    """Return the claims of §4.2 about ResNet and stochastic depth, about the 40-layer row, and about SVHN."""
    claims = [
        _beside(
            f"outperforms-resnet-{c.lower()}", key, "ResNet", c, "FractalNet outperforms the original ResNet (§4.2)"
        )
        for c, key in (("C10", "FractalNet"), ("C10+", "FractalNet"), ("C100", "FractalNet"), ("C100+", "FractalNet"))
    ]
    claims += [
        _beside(
            f"unregularised-beats-stochastic-depth-{c.lower()}",
            "FractalNet",
            "Stochastic Depth",
            c,
            "without regularisation, FractalNet is superior to ResNet with stochastic depth (§4.2)",
        )
        for c in ("C10", "C100")
    ]
    claims.append(
        _beside(
            "outperforms-resnet-svhn", "drop-path", "ResNet", "SVHN", "FractalNet outperforms ResNet, if not by much"
        )
    )
    claims += [
        close(
            f"40-layers-are-consistent-{c.lower()}",
            f"40 layers {c}",
            f"drop-path {c}",
            1.0,
            f"{c}: 40 layers perform consistently with 20 layers (§4.2; read here: within a point)",
        )
        for c in ("C10", "C100")
    ]
    return claims


TABLE1 = Experiment(
    name="fractalnet/table1",
    place="Table 1, own rows",
    shows="the effect of drop-path and dropout, by augmentation, and the error of the deepest column alone",
    scales=at_scales(
        lambda: _table_1(smoke(FractalNet(filters=(4, 4), dropout=(0.0, 0.1)), MIXED)),
        lambda: _table_1(
            small(FractalNet(filters=(16, 32, 32), dropout=(0.0, 0.1, 0.2)), MIXED, data__train_images=4000)
        ),
        lambda: (
            {
                f"{method} {column}": paper(f"fractalnet20-{dataset}{suffix}")
                for column, dataset in DATASETS.items()
                for method, suffix in (("FractalNet", "-unregularised"), ("drop-path", ""))
            }
            | {f"40 layers {column}": paper(f"fractalnet40-{dataset}") for column, dataset in DATASETS.items()}
            | {
                f"38.6M {column}": paper(f"fractalnet20_transition-{column.replace('C', 'cifar')}")
                for column in ("C10", "C100")
            }
        ),
        lambda: {
            f"{method} {column}": recipe
            for column in ("C10", "C10+")
            for method, recipe in _with_and_without(medium_20(DATASETS[column])).items()
        },
        medium_says=MEDIUM_SAYS,
        small_says=(
            "three blocks of (16, 32, 32) filters (12 layers) with dropout rates of 0, 0.1 and 0.2",
            "only CIFAR-10, since CIFAR-100 and SVHN are not available here",
        ),
    ),
    measure=per_arm(_with_deepest),
    published={
        key.format(column): Cell("table1", column, method=method)
        for key, method in METHODS.items()
        for column in DATASETS
    },
    claims=(
        *_table_1_claims("C10", "C10+"),
        *_table_1_claims("C100", "C100+"),
        *(_with_augmentation(column) for column in ("C10++", "C100++")),
        *(_near_whole(column) for column in ("C10", "C10+", "C10++", "C100", "C100+", "C100++")),
        *_others(),
    ),
    notes=(
        "The paper does not describe how its 40-layer network saves parameters; here, a fractal net of four columns "
        "replaces it. The rows *38.6M* have the 1×1 transitions that give the printed size. The numbers of ResNets are "
        "from CrescendoNet's Table I.",
    ),
)

# --- Table 2 ----------------------------------------------------------------------------------------------


def _resnet_34() -> Recipe:
    model = TimmModel(model="resnet34", num_classes=1000)
    return vary(paper("fractalnet34-imagenet"), model=model, objective=Whole())


TABLE2 = Experiment(
    name="fractalnet/table2",
    imagenet=True,
    place="Table 2",
    shows="the errors of FractalNet of 34 layers and of ResNet-34 on ImageNet, with ten crops",
    scales=at_scales(
        lambda: {
            "FractalNet-34": smoke(FractalNet(filters=(4, 4), columns=2, stem="imagenet"), MIXED),
            "ResNet-34": smoke(ResNet(depth=8)),
        },
        paper=lambda: {"FractalNet-34": paper("fractalnet34-imagenet"), "ResNet-34": _resnet_34()},
        paper_says=("both nets are trained by FractalNet's recipe, but the ResNet without drop-path",),
    ),
    measure=per_arm(whole),
    units={"loss": "nats, last epoch of training"},
    claims=(
        better(
            "fractalnet-matches-resnet",
            "FractalNet-34",
            "ResNet-34",
            "FractalNet matches ResNet at equal depth (read here: its error is at most half a point higher)",
            by=-0.5,
        ),
    ),
)

# --- Table 3 ----------------------------------------------------------------------------------------------


def _depths(base: Recipe, most: int) -> dict[str, Recipe]:
    model = base.model
    assert isinstance(model, FractalNet)
    return {f"{len(model.filters) * 2 ** (c - 1)} layers": vary(base, model__columns=c) for c in range(1, most + 1)}


def _deeper(depths: tuple[int, ...]) -> tuple[Claim, ...]:
    keys = [f"{d} layers" for d in depths]
    return (
        better(
            f"{depths[1]}-layers-beat-{depths[0]}",
            keys[1],
            keys[0],
            f"{depths[1]} layers have a lower error than {depths[0]} layers",
        ),
        better(
            f"{depths[-1]}-layers-beat-{depths[0]}",
            keys[-1],
            keys[0],
            f"{depths[-1]} layers have a lower error than {depths[0]} layers",
        ),
        better(
            f"{depths[-1]}-layers-do-not-degrade",
            keys[-1],
            keys[-2],
            f"{depths[-1]} layers have an error of at most a point above that of {depths[-2]} layers (no degradation)",
            by=-1.0,
        ),
    )


TABLE3 = Experiment(
    name="fractalnet/table3",
    place="Table 3",
    shows="the errors of fractal nets of growing depth",
    scales=at_scales(
        lambda: _depths(smoke(FractalNet(filters=(4, 4)), MIXED), 3),
        lambda: _depths(small(FractalNet(filters=(8, 16, 32, 32)), MIXED, data__train_images=4000, epochs=8), 4),
        lambda: {f"{5 * 2**n} layers": paper(f"fractalnet_ultra_{5 * 2**n}-cifar100++") for n in range(6)},
        lambda: _depths(_medium_40(), 4),
        medium_says=HALF_SAYS,
        small_says=("four blocks of (8, 16, 32, 32) filters, one to four columns; CIFAR-10 instead of CIFAR-100++",),
    ),
    measure=per_arm(whole),
    units={"loss": "nats, last epoch of training"},
    claims=(*_deeper((4, 8, 16, 32)), *_deeper((5, 10, 20, 40, 80, 160)), *_deeper((5, 10, 20, 40))[1:]),
)

# --- the figure of the introspection, the anytime curve ---------------------------------------------------


def _losses_along_training(run: Trained) -> Measured:
    """Measure the training loss of each column, run alone, at each kept checkpoint. A plain network has only one
    column. ``half way`` is the epoch at which the loss has fallen by half of its total fall."""
    plain = isinstance(run.recipe.objective, OnePath)
    chosen = [run.recipe.objective.paths] if isinstance(run.recipe.objective, OnePath) else _columns(run.recipe)
    curves: dict[str, list[tuple[float, float]]] = {}
    for epoch, net in run.epochs():
        for name, loss in run.training_loss(chosen, recalibrated=0 if plain else 1000, images=1000, net=net).items():
            curves.setdefault("whole" if plain else name, []).append((epoch, loss))
    values = {}
    for name, line in curves.items():
        half = (line[0][1] + line[-1][1]) / 2
        values |= {
            f"{name} loss": line[-1][1],
            f"{name} half way": next(x for x, y in line if y <= max(half, line[-1][1])),
        }
    return Measured(values=values, curves=curves)


FIGURE3 = Experiment(
    name="fractalnet/figure3",
    place="the figure of the introspection",
    shows="the training losses of a fractal net's columns, and of a plain net, during training",
    scales=at_scales(
        lambda: _deepest_beside_plain(smoke(FractalNet(filters=(4, 4)), MIXED, epochs=2, checkpoint_every=1, keep=2)),
        lambda: _deepest_beside_plain(
            small(
                FractalNet(filters=(8, 16, 32, 32), columns=4),
                MIXED,
                data__train_images=4000,
                epochs=8,
                checkpoint_every=1,
                keep=8,
            )
        ),
        lambda: {
            "fractal": vary(paper("fractalnet_ultra_40-cifar100++"), checkpoint_every=10, keep=40),
            "plain": vary(paper("fractalnet_plain_40-cifar100++"), checkpoint_every=10, keep=40),
        },
        lambda: _deepest_beside_plain(_medium_40()),
        medium_says=(*HALF_SAYS, "a point per epoch"),
        small_says=("four blocks of (8, 16, 32, 32) filters, 32 layers; CIFAR-10 instead of CIFAR-100++",),
        paper_says=("a point every ten epochs",),
    ),
    measure=per_arm(_losses_along_training),
    units={"loss": "nats, training images, no augmentation", "half way": "epochs"},
    claims=(
        less(
            "deepest-column-improves-later",
            "fractal/column=1 half way",
            "fractal/column=4 half way",
            "the deepest column improves later than the shallowest column (read here: half of the fall of its training "
            "loss is reached later)",
            "epochs",
            says="epoch at which half of the fall of the training loss is reached: `column=4` minus `column=1`",
        ),
        less(
            "deepest-column-loss-below-plain",
            "fractal/column=4 loss",
            "plain loss",
            "at the end of training, the deepest column has a lower training loss than a plain net of its depth",
            "nats",
            says="training loss of `plain` minus training loss of `fractal/column=4`",
        ),
    ),
    figure=lines(
        {**{f"fractal/column={c}": f"column {c} of the fractal net" for c in (1, 2, 3, 4)}, "plain": "plain net alone"},
        ylabel="training loss (nats)",
    ),
)

ANYTIME = Experiment(
    name="fractalnet/anytime",
    place="§3.1, columns as an anytime classifier",
    shows="the errors of the columns of one network against their cost",
    scales=at_scales(
        lambda: {"fractal": smoke(FractalNet(filters=(4, 4)), MIXED)},
        lambda: {"fractal": small(FractalNet(filters=(16, 32, 32)), MIXED, data__train_images=4000)},
        lambda: {"fractal": paper("fractalnet20-cifar100+")},
        lambda: {"fractal": medium_20("cifar10+")},
        medium_says=(*MEDIUM_SAYS, "CIFAR-10+ instead of CIFAR-100+"),
        small_says=("three blocks of (16, 32, 32) filters (12 layers), no dropout; CIFAR-10 instead of CIFAR-100+",),
    ),
    measure=per_arm(paths(recalibrated=1000), costs(), single=True),
    units={"params": "M", "MACs": "M"},
    claims=(
        better("column-2-beats-1", "column=2", "column=1", "column 2 has a lower error than column 1"),
        better("column-3-beats-2", "column=3", "column=2", "column 3 has a lower error than column 2"),
        better(
            "whole-beats-deepest-column",
            "whole",
            "column=3",
            "the whole network has a lower error than its deepest column",
        ),
    ),
    figure=against({"MACs of one image": (" MACs", "millions")}),
    notes=("Batch-norm is recalibrated for each column on 1,000 training images.",),
)

EXPERIMENTS = (TABLE1, TABLE2, TABLE3, TABLE4, FIGURE3, ANYTIME)
