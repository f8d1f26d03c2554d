"""FractalNet (Larsson et al., ICLR 2017): Tables 1 to 4, the figure of its introspection, the anytime curve.

Tables 2, 3 and 4 are lost in the text at hand: their claims are those of the running text, and nothing stands beside
what is measured.
"""

from __future__ import annotations

from polypath.families.fractalnet import FractalNet
from polypath.reproduce.claims import better, less
from polypath.reproduce.experiment import Experiment, Measured
from polypath.reproduce.figures import grouped_bars
from polypath.reproduce.measure import per_arm
from polypath.reproduce.scales import at_scales, paper, small, smoke, vary
from polypath.reproduce.trained import Trained
from polypath.training.path_objectives import DropPath, OnePath
from polypath.training.recipe import Recipe

MIXED = DropPath(mode="mixed", rate=0.15)


def _columns(base: Recipe) -> list[str]:
    return [f"column={c}" for c in range(base.model.columns, 0, -1)]  # type: ignore[attr-defined]


def _beside_plain(fractal: Recipe) -> dict[str, Recipe]:
    """A fractal net, and each of its columns trained alone, from scratch."""
    plain = {f"plain {c}": vary(fractal, objective=OnePath(paths=c)) for c in _columns(fractal)}
    return {"fractal": fractal} | plain


def _columns_and_losses(run: Trained) -> Measured:
    """Errors and training losses: of a fractal net and its columns, re-estimated; of a plain net, its own."""
    if isinstance(run.recipe.objective, OnePath):
        chosen, anew = {"whole": run.net.paths(run.recipe.objective.paths)}, 0
    else:
        chosen, anew = run.choice(["whole", *_columns(run.recipe)]), 1000
    losses = run.training_loss(chosen, recalibrated=anew)
    return Measured(run.correct(chosen, recalibrated=anew), {f"{k} loss": v for k, v in losses.items()})


DEEP, PLAIN = "fractal/column=4", "plain column=4"

TABLE4 = Experiment(
    name="fractalnet/table4",
    place="Table 4",
    shows="plain nets beside the columns of a fractal net, trained within it and taken out: error and training loss",
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
        },
        small_says=(
            "four blocks of (8, 16, 32, 32) filters and four columns: 32, 16, 8 and 4 layers instead of 40, 20, 10, 5",
            "no dropout; CIFAR-10 instead of CIFAR-100++",
        ),
    ),
    measure=per_arm(_columns_and_losses),
    units={"loss": "nats, training images, no augmentation"},
    claims=(
        better(DEEP, PLAIN, "the deepest column, taken out, errs less than a plain net of its depth trained alone"),
        less(f"{DEEP} loss", f"{PLAIN} loss", "… and its training loss is lower", "nats"),
        better("plain column=3", PLAIN, "the deepest plain net errs more than the one of half its depth (degrades)"),
        better(DEEP, "fractal/column=3", "the fractal net's deepest column errs less than the one of half its depth"),
        better(DEEP, "fractal", "the deepest column comes within 2 points of the whole fractal net", by=-2.0),
    ),
    figure=grouped_bars(
        {f"column {c}": f"column={c}" for c in (4, 3, 2, 1)},
        {"column of the fractal net": "fractal/", "plain net of its depth": "plain "},
    ),
)

EXPERIMENTS = (TABLE4,)
