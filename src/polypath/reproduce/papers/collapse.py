"""GUNN (Qiao et al. 2018), §4: do channels collapse into each other?

The paper proves that no two channels of a GUNN that are updated one after the other can collapse. It also says that
residual learning makes collapse harder in a network that updates all channels at once. This module measures collapse
along training, in each layer with segments, by two numbers. The first is the mean absolute correlation of pairs of
channels within a segment (updated together) and across segments. The second is the effective dimension: the
participation ratio of the eigenvalues of the correlation matrix, as a share of the channels.

The network *residual* is a SUNN, which updates all channels at once; *plain* is a SUNN without residual learning. The
proof is about segments of one channel (P = N). No network of the paper has such segments, so *GUNN, P = N* is added
here. Its segments contain no pairs of channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from polypath.analysis.similarity import channel_moments, effective_dimension, segments_of, similarity_table
from polypath.core.network import PathNet
from polypath.families.gunn import Gunn
from polypath.reproduce.claims import Claim, less
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.measured import Measured
from polypath.reproduce.papers.drawing import training_panels
from polypath.reproduce.papers.gunn import HALF, NARROW, medium_arm, small_arm, tiny_arm
from polypath.reproduce.scales import at_scales, paper
from polypath.reproduce.trained import Trained
from polypath.training.build import build_net
from polypath.training.recipe import Recipe

ARMS = {"plain": "plain", "residual": "SUNN", "GUNN": "GUNN"}
SINGLE = "GUNN, P = N"
PUBLISHED = {"residual": "sunn15", "GUNN": "gunn15"}
IMAGES = 500
PARTS = {"within": "within a segment", "across": "across segments", "dimension": "effective dimension"}


def likeness(run: Trained, net: PathNet) -> dict[str, float]:
    """Measure ``within``, ``across`` and ``dimension`` on test images, each as the mean over a network's layers, and
    the percentages of alike pairs. If segments have one channel, ``within`` is missing."""
    moments = channel_moments(net, _first(run))
    table = similarity_table(moments, segments_of(net))
    found = {part: float(table[part].to_numpy().mean()) for part in ("within", "across")}
    found |= {f"alike {part}": float(table[f"{part}_alike"].to_numpy().mean()) for part in ("within", "across")}
    shares = []
    for of in moments.values():
        covariance = of.matrix("correlation")
        scale = covariance.diagonal().clamp(min=1e-24).sqrt()
        eigenvalues = torch.linalg.eigvalsh(covariance / torch.outer(scale, scale)).clamp(min=0)
        shares.append(100.0 * effective_dimension(eigenvalues)["participation"] / len(scale))
    found = {part: value for part, value in found.items() if not math.isnan(value)}
    return found | {"dimension": float(np.mean(shares))}


def _first(run: Trained):
    seen = 0
    for x, y in run.test_batches():
        if seen >= IMAGES:
            return
        seen += len(x)
        yield x, y


def along_training(trained: Mapping[str, Trained]) -> Measured:
    """Measure every arm before training and at each kept epoch (curves), and at the end (values)."""
    found = Measured()
    for arm, run in trained.items():
        found.correct[arm] = run.correct(["whole"])["whole"]
        found.values |= {f"{arm} {part}": value for part, value in likeness(run, run.net).items()}
        untrained = build_net(run.recipe, run.folder).to(run.device).eval()
        for epoch, net in [(0, untrained), *run.epochs()]:
            for part, value in likeness(run, net).items():
                if part in PARTS:
                    found.curves.setdefault(f"{arm} {part}", []).append((epoch, value))
    return found


def one_channel(recipe: Recipe) -> Recipe:
    """Return the recipe of a GUNN, changed to segments of one channel."""
    assert isinstance(recipe.model, Gunn)
    return replace(recipe, model=replace(recipe.model, segments=recipe.model.channels))


def _published() -> dict[str, Recipe]:
    kept = {"checkpoint_every": 25, "keep": 12}
    arms = {arm: replace(paper(f"{name}-cifar10"), **kept) for arm, name in PUBLISHED.items()}
    residual = arms["residual"]
    assert isinstance(residual.model, Gunn)
    return {"plain": replace(residual, model=replace(residual.model, residual=False))} | _with_single(arms)


def _with_single(arms: Mapping[str, Recipe]) -> dict[str, Recipe]:
    return {**arms, SINGLE: one_channel(arms["GUNN"])}


COLLAPSE = Experiment(
    name="gunn/collapse",
    place="§4",
    shows="the similarity of channels within and across segments, and their effective dimension, during training",
    scales=at_scales(
        lambda: _with_single({arm: tiny_arm(kind) for arm, kind in ARMS.items()}),
        lambda: _with_single({arm: small_arm(kind) for arm, kind in ARMS.items()}),
        _published,
        lambda: {arm: medium_arm(ARMS[arm]) for arm in PUBLISHED},
        medium_says=(HALF, f"only GUNN and SUNN; measured on {IMAGES} test images"),
        small_says=(NARROW, f"the paper measures nothing in §4; here it is measured on {IMAGES} test images"),
    ),
    measure=along_training,
    units={
        " alike within": "% of pairs", " alike across": "% of pairs", " within": "|correlation|",
        " across": "|correlation|", " dimension": "% of the channels",
    },
    claims=(
        less(
            "gunn-across-less-than-within", "GUNN across", "GUNN within",
            "GUNN's channels are less alike across segments than within a segment (§4.3)",
            says="mean absolute correlation in GUNN: within segments minus across segments",
        ),
        less(
            "gunn-segments-less-alike-than-plain", "GUNN across", "plain across",
            "channels of different segments are less alike in GUNN than in the plain network (§4.1)",
            says="mean absolute correlation across segments: plain network minus GUNN",
        ),
        less(
            "residual-less-alike-than-plain", "residual within", "plain within",
            "residual learning makes channels less alike (§4.1)",
            says="mean absolute correlation within segments: plain network minus residual network",
        ),
        less(
            "gunn-more-dimensions-than-plain", "plain dimension", "GUNN dimension",
            "GUNN keeps more effective dimensions than the plain network (§4)", "%",
            says="effective dimension, in percent of the channels: GUNN minus plain network",
        ),
        less(
            "gunn-more-dimensions-than-residual", "residual dimension", "GUNN dimension",
            "GUNN keeps more effective dimensions than the residual network, SUNN (§4)", "%",
            says="effective dimension, in percent of the channels: GUNN minus residual network",
        ),
        Claim(
            "single-channels-cannot-collapse",
            "if each segment has one channel, no two channels collapse (§4.2; read here: no pair has an absolute "
            "correlation of 0.9 or more)",
            lambda m: 0.05 - m[f"{SINGLE} alike across"], "% of pairs",
            "0.05 minus the percentage of pairs with an absolute correlation of 0.9 or more",
        ),
        less(
            "single-channels-less-alike-than-plain", f"{SINGLE} across", "plain across",
            "if each segment has one channel, channels are less alike than in the plain network (§4.2)",
            says="mean absolute correlation across segments: plain network minus GUNN with P = N",
        ),
    ),
    figure=training_panels(
        {
            " within": "mean |correlation| within a segment",
            " across": "mean |correlation| across segments",
            " dimension": "effective dimension (% of channels)",
        }
    ),
    notes=(
        "A pair counts as alike at an absolute correlation of 0.9 or more. Epoch 0 is the untrained network.",
    ),
)  # fmt: skip

EXPERIMENTS = (COLLAPSE,)
