"""Details that a paper leaves open or that its released code does differently, with options for the other readings.

The generated part of the cards (``docs/cards``) is made from these details and from the recipes' ``assumed``. Options
are recipe fields. A test checks that each option can be set and has an effect.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from polypath.training.recipe import Recipe

RELEASED, TEXT, PRINTED, OTHERS = "the released code", "the paper's text", "the printed sizes", "re-implementations"


class Choice(NamedTuple):
    """One question with two answers.

    Attributes:
        what: the question, in a few words.
        ours: our answer, which is the default.
        whose: the source of the other answer.
        other: the other answer.
        option: the recipe fields that select the other answer, with their values, by dotted name.
        on: the name of a recipe that has these fields.
    """

    what: str
    ours: str
    whose: str
    other: str
    option: Mapping[str, Any]
    on: str


CHOICES: dict[str, tuple[Choice, ...]] = {
    "crescendonet": (
        Choice(
            "pools", "three, which give the printed size", TEXT, "two, which give 8×8 maps (7.08M, 37.17M)",
            {"model.final_map": 8}, "crescendonet_128-cifar10",
        ),
        Choice(
            "conv biases", "none (not stated)", "another reading", "with biases",
            {"model.bias": True}, "crescendonet_128-cifar10",
        ),
        Choice(
            "dropout", "none (neither place nor rate is stated)", "another reading", "after a unit's norm",
            {"model.dropout": 0.1}, "crescendonet_128-cifar10",
        ),
        Choice(
            "gradient in path-wise training", "flows through the frozen branches", "another reading",
            "stops at the frozen branches",
            {"objective.backward": "truncated"}, "crescendonet_512-cifar10-adam-pathwise",
        ),
        Choice(
            "L2", "on the linear layers", "another reading", "on all weights",
            {"optim.decay": "all"}, "crescendonet_512-cifar10-adam",
        ),
    ),
    "fractalnet": (
        Choice(
            "pool and last join", "each column pooled, then joined (the released code)", "Fig. 1",
            "joined, then pooled",
            {"model.pool": "after"}, "fractalnet20-cifar100",
        ),
        Choice(
            "where the number of channels grows", "in a column's first conv (the released code)", PRINTED,
            "1×1 units before blocks 1 to 4",
            {"model.transitions": (1, 2, 3, 4)}, "fractalnet20-cifar100",
        ),
        Choice(
            "Xavier initialisation", "Caffe's, by fan-in", "Glorot and Bengio", "by the mean of fan-in and fan-out",
            {"model.init": "xavier"}, "fractalnet20-cifar100",
        ),
        Choice(
            "conv biases; scale and shift of norms", "no biases; scale and shift", RELEASED,
            "biases; no scale and shift",
            {"model.bias": True, "model.affine": False}, "fractalnet20-cifar100",
        ),
        Choice(
            "learning rate and weight decay of biases", "the same as for weights", RELEASED, "twice the rate; no decay",
            {"model.bias": True, "optim.bias_lr": 2.0, "optim.bias_decay": 0.0}, "fractalnet20-cifar100",
        ),
        Choice(
            "drop rate of a join", "one for all operands", RELEASED, "one for each operand",
            {"objective.rates": (0.15, 0.15, 0.15)}, "fractalnet20-cifar100",
        ),
        Choice(
            "global drop-path", "one column for the whole network", OTHERS, "one for each block",
            {"objective.mode": "mixed-a-block"}, "fractalnet20-cifar100",
        ),
        Choice(
            "number of draws", "one for each mini-batch", OTHERS, "one for each image",
            {"objective.groups": 0}, "fractalnet20-cifar100",
        ),
        Choice(
            "dropout", "of single elements (the released code)", OTHERS, "of whole channels",
            {"model.dropout_kind": "channel"}, "fractalnet20-cifar100",
        ),
    ),
    "dfn": (
        Choice(
            "initialisation", "normal, by fan-in (He et al. 2015, Eq. 10; the released code)", "also in He et al. 2015",
            "by fan-out",
            {"model.init": "he"}, "dfn_mr56-cifar10",
        ),
        Choice(
            "batch-norm's epsilon", "1e-5 (not stated)", RELEASED, "2e-5",
            {"model.norm_eps": 2e-5}, "dfn_mr56-cifar10",
        ),
        Choice(
            "batch-norm's momentum", "0.1, which is MXNet's 0.9 (not stated)", f"some revisions of {RELEASED}",
            "0.01, which is MXNet's 0.99",
            {"model.norm_momentum": 0.01}, "dfn_mr56-cifar10",
        ),
        Choice(
            "images per batch-norm statistic", "the whole batch", "each of the paper's GPUs", "32 images",
            {"parallel.batch_norm": "ghost", "parallel.ghost_images": 32}, "dfn_mr56-cifar10",
        ),
        Choice(
            "inception-like fusion", "with a shortcut (Fig. 6)", f"{RELEASED}, network `side`",
            "only branches; not in the paper",
            {"model.shortcuts": False}, "dfn_il56-cifar10",
        ),
        Choice(
            "DFN-MR for ImageNet", "(2, 2, 8, 2), projections, one sum at the end (43.3M)",
            f"{RELEASED}, later revision",
            "(1, 2, 11, 2), no shortcut where the size changes, both streams concatenated at the end (46.4M); "
            "not in the paper",
            {"model.blocks": (1, 2, 11, 2), "model.projections": False, "model.ending": "concat"},
            "dfn_mr-imagenet",
        ),
        Choice(
            "stride of a bottleneck", "on the 3×3 conv (the released code)", "He et al. 2016", "on the first 1×1 conv",
            {"model.stride_at": "1x1"}, "fusenet_resnet101-imagenet",
        ),
        Choice(
            "fusing operation", "the sum", "§3 of the paper", "the maximum",
            {"model.join": "max"}, "dfn_il56-cifar10",
        ),
    ),
    "gunn": (
        Choice(
            "Nesterov momentum", "on (the released code)", TEXT, "off, because it is not mentioned",
            {"optim.nesterov": False}, "gunn15-cifar10",
        ),
        Choice(
            "1×1 conv beside a unit", "on CIFAR, for the exact sizes (the released code)", TEXT, "none",
            {"model.parallel": False}, "gunn15-cifar10",
        ),
        Choice(
            "order between layers", "1×1 conv, then pool (the paper's text)", f"{RELEASED} for ImageNet",
            "pool, then 1×1 conv",
            {"model.transition": "pool-conv"}, "gunn18-imagenet",
        ),
        Choice(
            "augmentation on CIFAR", "images are mirrored and shifted", RELEASED,
            "images are also rolled, two times in three",
            {"data.augment.roll": 2 / 3}, "gunn15-cifar10",
        ),
        Choice(
            "images per batch-norm statistic", "the whole batch", "each of the paper's GPUs", "16 images",
            {"parallel.batch_norm": "ghost", "parallel.ghost_images": 16}, "gunn15-cifar10",
        ),
        Choice(
            "backward pass", "Algorithm 1, in place", "Eq. 4 as written", "a copy of the maps for each segment",
            {"model.backward": "reference"}, "gunn15-cifar10",
        ),
        Choice(
            "channels per segment", "as in Tables 1 and 2", "the proof of §4", "one channel",
            {"model.segments": (240, 300, 360)}, "gunn15-cifar10",
        ),
    ),
    "drnn": (
        Choice(
            "blocks with gates", "the recursive ones", PRINTED, "all blocks",
            {"model.gates": "all"}, "dr_resnet53-imagenet",
        ),
        Choice(
            "first loop", "with a gate, to get 11.921 loops", "\"after every single forward\"", "without a gate",
            {"model.first_loop": "free"}, "dr_resnet74-cifar10",
        ),
        Choice(
            "samples among which the rate is measured", "those that reach a gate, to get 11.921 loops",
            "some GFLOPs of Table 1", "all samples",
            {"objective.over": "all"}, "dr_resnet74-cifar10",
        ),
        Choice(
            "λ of the target-rate loss", "2 on CIFAR, 1 on ImageNet, as in ConvNet-AIG (not stated)", "another reading",
            "a different value",
            {"objective.weight": 1.0}, "dr_resnet74-cifar10",
        ),
        Choice(
            "improved LVBN", "normalise and update by the samples that pass the gate", "another reading",
            "normalise by all samples, update by those that pass the gate",
            {"model.norm": "i-lvbn-updates"}, "dr_resnet53-imagenet",
        ),
        Choice(
            "shortcuts on CIFAR", "without parameters, to get the printed sizes", "another reading", "projections",
            {"model.shortcut": "projection"}, "dr_resnet74-cifar10",
        ),
        Choice(
            "stride of a bottleneck", "on the first 1×1 conv, to get the printed GFLOPs", "later ResNets",
            "on the 3×3 conv",
            {"model.stride_at": "3x3"}, "dr_resnet53-imagenet",
        ),
        Choice(
            "share of images that gates let pass at first", "85%, as stated", "ConvNet-AIG's biases", "87%",
            {"model.gate_open": 0.8699}, "dr_resnet53-imagenet",
        ),
    ),
}  # fmt: skip

CARDS = {
    "crescendonet": "crescendonet",
    "fractalnet": "fractalnet",
    "dfn": "fusenet",
    "gunn": "gunn",
    "drnn": "recursive",
}
"""The name of each paper's card in ``docs/cards``."""
BEGIN, END = "<!-- from here: made from the code by `make docs` -->", "<!-- to here -->"


def card(text: str, paper: str) -> str:
    """Return the card ``text`` with a new generated part, which is the part between the two marks.

    Raises:
        ValueError: the text does not contain the marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the card of {paper} must have the lines {BEGIN!r} and {END!r}, once each and in this order")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    return before + "\n".join([BEGIN, "", *_options(paper), *_assumed(paper), after])


def option_text(option: Mapping[str, Any]) -> str:
    """Return recipe fields as command-line options."""
    return " ".join(_argument(name, value) for name, value in option.items())


def recipes_of(paper: str) -> list[Recipe]:
    """Return all recipes of a paper's published setting."""
    return [entry.recipe for entry in importlib.import_module(f"polypath.training.recipes.{paper}").entries()]


def _argument(name: str, value: Any) -> str:
    *room, last = name.split(".")
    flag = ".".join([*room, last.replace("_", "-")])
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--{'.'.join([*room, 'no-' + last.replace('_', '-')])}"
    return f"--{flag} {' '.join(map(_plain, value)) if isinstance(value, tuple) else _plain(value)}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _options(paper: str) -> Iterator[str]:
    yield from ("## Options for other readings of the paper", "")
    yield from ("| question | our default | other answer | option |", "|---|---|---|---|")
    for choice in CHOICES[paper]:
        yield f"| {choice.what} | {choice.ours} | {choice.whose}: {choice.other} | `{option_text(choice.option)}` |"
    yield ""


def _assumed(paper: str) -> Iterator[str]:
    """Yield the lines of the table of fields that the paper does not state. A row has the field, the reason for its
    value, and the number of recipes with this reason."""
    recipes = recipes_of(paper)
    by: dict[tuple[str, str], int] = {}
    for recipe in recipes:
        for field, reason in recipe.assumed.items():
            by[field, reason] = by.get((field, reason), 0) + 1
    yield from (
        "## Assumed in recipes",
        "",
        f"These fields of the {len(recipes)} recipes are not stated in the paper. A value after a colon is ours.",
        "",
    )
    yield from ("| field | why | recipes |", "|---|---|---|")
    for field in dict.fromkeys(field for field, _ in by):
        for reason, count in _reasons(by, field):
            yield f"| `{field}` | {reason} | {'all' if count == len(recipes) else count} |"
    yield ""


def _reasons(by: Mapping[tuple[str, str], int], field: str) -> Iterable[tuple[str, int]]:
    return ((reason, count) for (of, reason), count in by.items() if of == field)
