"""Effects of the gates of a dynamic recursive net (Guo et al., CVPR 2019): Figures 7, 8 and 9.

All figures are about the network of Table 3 that has gates and I-LVBN. In the published setting this is DR-ResNet-53.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from polypath.analysis.galleries import easy_and_hard_by_loops, pixels
from polypath.analysis.loops import loop_histogram, loops_taken
from polypath.analysis.plots.style import COLOURS, canvas, new_figure
from polypath.families.registry import get_preset
from polypath.profiling.expected import expected_loops
from polypath.reproduce.claims import Claim, above, counted, less
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.figures import finish, title
from polypath.reproduce.gating import PassedStopped, passed_and_stopped
from polypath.reproduce.measured import Measured
from polypath.reproduce.papers.drawing import channel_lines
from polypath.reproduce.papers.drnn import at_arms
from polypath.reproduce.papers.shapes import shapes
from polypath.reproduce.trained import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polypath.reproduce.result import Result

ARM = "gated"
PRINTED_EXPECTED, PRINTED_MEAN, PRINTED_STD, PRINTED_MOST = 11.921, 11.74, 1.50, 23

# --- Figure 7 -----------------------------------------------------------------------------------------------------


def statistics(trained: Mapping[str, Trained]) -> Measured:
    """Measure the statistics by channel for one block of the first and of the last group with gates, and the mean
    discrepancy of these two groups."""
    run = trained[ARM]
    found = Measured({"gated": run.correct(["whole"])["whole"]})
    blocks = passed_and_stopped(run.net, run.test_batches())
    groups: dict[str, list[float]] = {}
    for block, of in blocks.items():
        groups.setdefault(block.partition(".")[0], []).append(of.discrepancy)
    names = list(groups)
    for name, where in zip(names[:1] + names[-1:], ("shallow", "deep"), strict=False):
        found.values[f"{where} discrepancy"] = float(np.mean(groups[name]))
        found.curves |= _lines(where, blocks[next(b for b in blocks if b.startswith(f"{name}."))])
    return found


def _lines(where: str, of: PassedStopped) -> dict[str, list[tuple[float, float]]]:
    parts = {"mean passed": of.mean_passed, "mean stopped": of.mean_stopped}
    parts |= {"variance passed": of.var_passed, "variance stopped": of.var_stopped}
    return {f"{where} {name}": [(i, float(v)) for i, v in enumerate(values)] for name, values in parts.items()}


def _panel(where: str, what: str) -> tuple[str, dict[str, str]]:
    return f"{what} by channel, {where} group", {
        f"{where} {what} passed": "passed (g = 1)",
        f"{where} {what} stopped": "stopped (g = 0)",
    }


FIGURE7 = Experiment(
    name="drnn/fig7",
    imagenet=True,
    place="Figure 7",
    shows="the mean and variance of channels before a block's first norm, for images that a gate passes or stops",
    scales=at_arms((ARM,)),
    measure=statistics,
    units={" discrepancy": "standard deviations"},
    claims=(
        above(
            "passed-and-stopped-differ", "shallow discrepancy", 0.1,
            "feature maps of passed and stopped images differ (read here: by more than 0.1 standard deviations)", "std",
            says="discrepancy in the shallow group minus 0.1",
        ),
        less(
            "discrepancy-grows-with-depth", "shallow discrepancy", "deep discrepancy",
            "the discrepancy is larger in the deep layer, where the gate is more confident", "std",
            says="discrepancy in the deep group minus discrepancy in the shallow group",
        ),
    ),
    figure=channel_lines([_panel(w, s) for w in ("shallow", "deep") for s in ("mean", "variance")]),
    notes=(
        "*Shallow* and *deep* are the first and the last group with gates. The curves show one block of each group. "
        "The discrepancy is the distance between the means of passed and stopped images, in standard deviations, "
        "averaged over channels and blocks.",
    ),
)  # fmt: skip

# --- Figure 8 -----------------------------------------------------------------------------------------------------


def loop_counts(trained: Mapping[str, Trained]) -> Measured:
    """Count the loops that each test image takes."""
    run = trained[ARM]
    taken = loops_taken(run.net, run.test_batches())
    loops = taken.images["loops"].to_numpy()
    frame = loop_histogram(loops, taken.most)
    target = getattr(run.recipe.objective, "target", 0.7)
    expected = expected_loops(run.net, target)
    mean = float(loops.mean())
    return Measured(
        {"gated": run.correct(["whole"])["whole"]},
        {
            "mean loops": mean,
            "deviation loops": float(loops.std(ddof=1)),
            "most loops": float(taken.most),
            "expected loops": expected,
            "off target share": 100.0 * abs(mean - expected) / taken.most,
        },
        histograms={"loops": {str(int(n)): float(s) for n, s in zip(frame["loops"], frame["share"], strict=True)}},
    )


def _published_expectation(_: Mapping[str, float]) -> float:
    return 0.0005 - abs(expected_loops(shapes(get_preset("dr_resnet53_imagenet").spec), 0.7) - PRINTED_EXPECTED)


def _histogram(result: Result) -> Figure:
    figure, (axis,) = canvas(width=6.4, height=4.0)
    seeds = result.histograms.get("loops", [])
    if seeds:
        numbers = sorted({int(n) for of in seeds for n in of})
        shares = np.array([[of.get(str(n), 0.0) for n in numbers] for of in seeds])
        axis.bar(numbers, shares.mean(0), 0.85, color=COLOURS[0], label="share of test images, mean over seeds")
        axis.axvline(result.mean("mean loops"), color=COLOURS[1], lw=1.3, label=f"mean {result.mean('mean loops'):.2f}")
        expected = result.mean("expected loops")
        axis.axvline(expected, color="0.3", lw=1.3, ls="--", label=f"on target {expected:.2f}")
    axis.set_xlabel("number of loops")
    axis.set_ylabel("frequency")
    return finish(figure, result)


FIGURE8 = Experiment(
    name="drnn/fig8",
    imagenet=True,
    place="Figure 8",
    shows="the numbers of loops that test images run",
    scales=at_arms((ARM,)),
    measure=loop_counts,
    units={" loops": "loops", " share": "% of the most loops"},
    published={
        "mean loops": Cell("prose", "value", quantity="average executed loops, DR-ResNet-53"),
        "deviation loops": Cell("prose", "value", quantity="std of executed loops"),
        "most loops": Cell("prose", "value", quantity="maximum loops"),
        "expected loops": Cell("prose", "value", quantity="expected loops at target 0.7"),
    },
    claims=(
        Claim(
            "loops-near-expectation",
            "the average number of loops is close to the number expected from the target rate (printed: 11.74 and "
            "11.921 of 23; read here: they differ by less than 5% of the largest possible number)",
            lambda m: 5.0 - m["off target share"],
            "%",
            "5 minus the absolute difference between the mean and the expected number of loops, in percent of the "
            "largest possible number",
        ),
        above(
            "loops-vary",
            "deviation loops",
            0.5,
            "the number of loops varies across images (printed standard deviation: 1.50; read here: above 0.5)",
            "loops",
            says="standard deviation of the number of loops minus 0.5",
        ),
        counted(
            "expectation-as-printed",
            "the expected number of loops of DR-ResNet-53 at a target rate of 0.7 is 11.921",
            _published_expectation,
            "loops",
            "0.0005 minus the absolute difference between the computed number and 11.921",
        ),
    ),
    figure=_histogram,
)

# --- Figure 9 -----------------------------------------------------------------------------------------------------

SHOWN = 8


def easy_and_hard(trained: Mapping[str, Trained]) -> Measured:
    """Measure the error on the quarter of the test images with the fewest loops and on the quarter with the most. Keep
    pictures of easy and hard images."""
    run = trained[ARM]
    images = loops_taken(run.net, run.test_batches()).images
    loops, right = images["loops"].to_numpy(), images["right"].to_numpy()
    order = np.argsort(loops, kind="stable")
    quarter = max(1, len(order) // 4)
    easy, hard = order[:quarter], order[-quarter:]
    found = Measured(
        {"gated": run.correct(["whole"])["whole"]},
        {
            "easy error": 100.0 * float((~right[easy]).mean()),
            "hard error": 100.0 * float((~right[hard]).mean()),
            "easy loops": float(loops[easy].mean()),
            "hard loops": float(loops[hard].mean()),
        },
    )
    gallery = easy_and_hard_by_loops(images, SHOWN)
    shown = _pictures(run, list(gallery["image"]))
    for kind, rank, value, picture in zip(gallery["kind"], gallery["rank"], gallery["value"], shown, strict=True):
        found.pictures[f"{kind} {rank} ({int(value)} loops)"] = _png(picture.numpy())
    return found


def _pictures(run: Trained, places: list[int]) -> torch.Tensor:
    """Return test images ``(n, H, W, 3)`` uint8 as the network sees them, by their indices in the data."""
    found: dict[int, torch.Tensor] = {}
    first = 0
    for x, _ in run.test_batches():
        found |= {n: x[n - first].cpu() for n in places if first <= n < first + len(x)}
        first += len(x)
    images = torch.stack([found[n] for n in places])
    return pixels(images, range(len(places)), run.data.mean, run.data.std)


def _png(pixels: np.ndarray) -> str:
    """Return pixels ``(H, W, 3)`` uint8 as a PNG in base64."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _gallery(result: Result) -> Figure:
    """Draw easy images in the upper row, hard ones in the lower, each with its number of loops."""
    columns = max(
        1, max((sum(key.startswith(kind) for key in result.pictures) for kind in ("easy", "hard")), default=1)
    )
    figure = new_figure(1.15 * columns + 0.6, 3.5)
    panels = figure.subplots(2, columns, squeeze=False)
    for row, kind in zip(panels, ("easy", "hard"), strict=True):
        pictures = [(key, of) for key, of in result.pictures.items() if key.startswith(kind)]
        for axis in row:
            axis.set_axis_off()
        for axis, (key, of) in zip(row, pictures, strict=False):
            axis.imshow(np.asarray(Image.open(io.BytesIO(base64.b64decode(of)))), interpolation="nearest")
            axis.set_title(f"{kind}: {key.partition('(')[2].rstrip(')')}", fontsize=8)
    figure.suptitle(title(result), fontsize=10)
    return figure


FIGURE9 = Experiment(
    name="drnn/fig9",
    imagenet=True,
    place="Figure 9",
    shows="test images that run few loops (easy) and many loops (hard)",
    scales=at_arms((ARM,)),
    measure=easy_and_hard,
    figure=_gallery,
    units={" error": "% error", " loops": "loops"},
    claims=(
        less(
            "many-loops-are-hard", "easy error", "hard error",
            "images with many loops are hard (read here: the error is higher on the quarter of the images with the "
            "most loops than on the quarter with the fewest)", "points",
            says="error on the hard quarter minus error on the easy quarter",
        ),
        less(
            "quarters-differ-in-loops", "easy loops", "hard loops",
            "the number of loops varies across images (read here: between the quarters with the most and the fewest)",
            "loops", says="mean number of loops in the hard quarter minus that in the easy quarter",
        ),
    ),
    notes=(
        "Whether hard images are blurred or occluded can only be judged by looking at them. The verdict is about how "
        "often these images are misclassified.",
    ),
)  # fmt: skip

EXPERIMENTS = (FIGURE7, FIGURE8, FIGURE9)
