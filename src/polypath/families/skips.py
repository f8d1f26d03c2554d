"""Residual networks of timm whose blocks can be skipped (Veit et al. 2016; Huang et al. 2016).

A residual network is a fused net of its blocks and the identities beside them (Zhao et al. 2016, §3). So each residual
block (:mod:`polypath.families.recorded`) becomes one operand of a switch; the other operand is ``skip``. The whole
network is the model as timm runs it. Paths are ``skip=layer3.4`` or ``skip=blocks.3.mlp``, or several such names
separated by commas. ``depth=3/4/5/3`` runs the first 3, 4, 5 and 3 blocks of the four stages. A stage is the module
that contains the blocks. If no block of a stage can be skipped, the stage has no number in ``depth``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import did_you_mean, whole_text
from polypath.core.network import HEAD
from polypath.core.recording import symbolic
from polypath.core.wiring import Unit, Wiring
from polypath.families.recorded import Piece, Recorded, chains_of
from polypath.families.resnet import Choices, left_open

SKIP, BLOCK = "skip", "block"
BODY = "body.model."
LEVELS = (0.75, 0.5, 0.25, 0.0)  # shares of the skippable blocks that run in the standard choices


class FixedSize(nn.Module):
    """An identity module that accepts only images of ``size`` (height, width)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        check_fixed(x, self.size)
        return x


def check_fixed(x: Tensor, size: tuple[int, int]) -> None:
    """Check that the images have height and width ``size``.

    Raises:
        ValueError: the images have another size.
    """
    if not symbolic(x) and tuple(x.shape[-2:]) != size:
        raise ValueError(
            f"images of {x.shape[-2]}x{x.shape[-1]} pixels: must be {size[0]}x{size[1]} for this model "
            f"(the model's argument img_size or in_size, if there is one, changes this size)"
        )


def draw_skips(
    b: NetBuilder, z: str, model: nn.Module, image: tuple[int, int, int], where: str, rates: Mapping[str, float]
) -> str:
    """Add a timm model without its classifier to ``b``, after the node ``z``.

    Args:
        image: channels, height and width of the images that the model is made for.
        where: the model's name in error messages.
        rates: for each node, the probability that stochastic depth skips it in training.

    Returns:
        The node that the classifier reads.

    Raises:
        ValueError: the code cannot be split, no block can be skipped, or the output differs from the model's.
    """
    for module in model.modules():  # a skip returns the block's input, so the block must not overwrite it
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010 (nn.Module does not declare this attribute)
    try:
        features, head = chains_of(model)
    except Exception as error:  # recording another package's code may raise anything
        raise ValueError(f"{where}: the blocks cannot be separated: {error}; leave out the argument 'skips'") from error
    if not any(piece.residual for piece in features):
        raise ValueError(f"{where}: no block is residual, so none can be skipped; leave out the argument 'skips'")
    values, answer = _values([*features, *head], model, image)
    if not answer.is_meta and not torch.equal(values[-1], answer):
        raise ValueError(f"{where}: the output changes when blocks are separated; leave out the argument 'skips'")
    ends = _stage_ends(model, features)
    for piece, value in zip(features, values, strict=False):
        z = _unit(b, piece, piece.name, z, rates)
        if piece.name in ends and value.ndim == 4:
            b.stage(z, ends[piece.name])
    for piece in head:
        z = _unit(b, piece, piece.name if piece.name.startswith(HEAD) else HEAD + piece.name, z, rates)
    return b.add(f"{HEAD}vector", z, nn.Flatten(1))


def _unit(b: NetBuilder, piece: Piece, name: str, z: str, rates: Mapping[str, float]) -> str:
    run = b.add(name, z, piece.module, at=BODY + piece.path, variant=piece.variant)
    if not piece.residual:
        return run
    return b.join(f"{name}.join", {SKIP: z, BLOCK: run}, "switch", survival={BLOCK: 1.0 - rates.get(name, 0.0)})


def _values(pieces: Sequence[Piece], model: nn.Module, image: tuple[int, int, int]) -> tuple[list[Tensor], Tensor]:
    """Compute each piece's output, in order, and the model's output, for one image."""
    like = next(model.parameters())
    ramp = torch.arange(image[0] * image[1] * image[2], dtype=like.dtype, device=like.device)
    x = ramp.mul(0.7).sin().view(1, *image)
    values, training = [x], model.training
    with torch.no_grad():
        for module in (model, *(piece.module for piece in pieces)):
            module.eval()
        for piece in pieces:
            options = {} if piece.variant is None else {"variant": piece.variant}
            values.append(piece.module(values[-1], **options))
        answer = model(x)
    for module in (model, *(piece.module for piece in pieces)):
        module.train(training)
    return values[1:], answer


def _stage_ends(model: nn.Module, pieces: Sequence[Piece]) -> dict[str, str]:
    """Map the last piece of each module in timm's ``feature_info`` to the module's name."""
    told: Any = getattr(model, "feature_info", ())
    found: dict[str, str] = {}
    for module in (str(told[i]["module"]) for i in range(len(told))):
        inside = [piece.name for piece in pieces if piece.path == module or piece.path.startswith(f"{module}.")]
        if inside:
            found[inside[-1]] = module
    return found


@dataclass(frozen=True)
class Stage:
    """The blocks in one module: their paths, each with the nodes that may be skipped (none if the block must run)."""

    name: str
    blocks: Mapping[str, tuple[str, ...]]

    @property
    def least(self) -> int:
        """Number of blocks that cannot be skipped."""
        return sum(not nodes for nodes in self.blocks.values())

    def skipped(self, kept: int) -> list[str]:
        """List the nodes to skip so that ``kept`` blocks run: the blocks that must run and the first of the others."""
        more = kept - self.least
        found: list[str] = []
        for nodes in self.blocks.values():
            if nodes and more <= 0:
                found += nodes
            more -= bool(nodes)
        return found


def stages_of(wiring: Wiring) -> list[Stage]:
    """List the stages with blocks that can be skipped, in the order in which they run."""
    blocks: dict[str, list[str]] = {}
    for node in wiring.nodes:
        if isinstance(node, Unit) and node.module.startswith(BODY):
            skips = blocks.setdefault(node.module.removeprefix(BODY), [])
            skips += [node.name] if f"{node.name}.join" in wiring.joins else []
    parents = dict.fromkeys(path.rpartition(".")[0] for path, nodes in blocks.items() if nodes)
    found = {parent: {path: tuple(blocks[path]) for path in blocks if _stands_in(path, parent)} for parent in parents}
    return [Stage(parent, inside) for parent, inside in found.items()]


def _stands_in(path: str, parent: str) -> bool:
    """Return whether a module is a block of the stage ``parent``: a child of ``parent`` whose name ends in a digit."""
    above, _, name = path.rpartition(".")
    return above == parent and name[-1:].isdigit()


def selectors_of(full: Wiring) -> Mapping[str, Callable[[Wiring, str], Choices]]:
    """Return the selectors ``skip`` and ``depth`` for the wiring ``full`` and for wirings extracted from it."""
    return {"skip": partial(_skip, full), "depth": partial(_depth, full, stages_of(full))}


def standard_depths(full: Wiring) -> list[str]:
    """List the standard ``depth`` choices as texts, from deep to shallow, without the whole network's."""
    stages = stages_of(full)
    texts: list[str] = []
    for level in LEVELS:
        kept = [stage.least + round(level * (len(stage.blocks) - stage.least)) for stage in stages]
        texts.append(f"depth={'/'.join(map(str, kept))}")
    whole = f"depth={'/'.join(str(len(stage.blocks)) for stage in stages)}"
    return [text for text in dict.fromkeys(texts) if text != whole]


def _skip(full: Wiring, wiring: Wiring, value: str) -> Choices:
    """Read the blocks, or steps of blocks, to skip: ``layer1.2``, or several, ``layer1.2,layer3.1``."""
    legal = [name.removesuffix(".join") for name in full.joins]
    choice: Choices = {}
    for text in value.split(","):
        found = [name for name in legal if name == text.strip() or name.startswith(f"{text.strip()}.")]
        if not found or text.strip() not in {*legal, *(name.rpartition(".")[0] for name in found)}:
            raise ValueError(f"skip {text!r}: is not a block that can be skipped; {did_you_mean(text, legal)}")
        choice |= {f"{name}.join": [SKIP] for name in found}
    return left_open(full, wiring, f"skip={value}", choice)


def _depth(full: Wiring, stages: Sequence[Stage], wiring: Wiring, value: str) -> Choices:
    """Read how many blocks of each stage run, ``3/4/5/3``, including those that must run."""
    numbers = value.split("/")
    if len(numbers) != len(stages):
        names = ", ".join(f"{s.name} ({s.least} to {len(s.blocks)})" for s in stages)
        raise ValueError(f"depth {value!r}: give {len(stages)} numbers separated by '/', one for each of {names}")
    choice: Choices = {}
    for stage, text in zip(stages, numbers, strict=True):
        kept = whole_text(f"depth of {stage.name}", text, stage.least, len(stage.blocks))
        choice |= {f"{node}.join": [SKIP] for node in stage.skipped(kept)}
    return left_open(full, wiring, f"depth={value}", choice)


def linear_rates(model: Any) -> dict[str, float]:
    """Map each block or residual step of a timm model with ``drop_path_rate`` to the rate at which it is dropped."""
    from timm.layers.drop import DropPath

    features, _ = chains_of(model)
    found: dict[str, float] = {}
    for piece in features:
        module = piece.module
        names = module.used[piece.variant] if isinstance(module, Recorded) else ("",)
        parts = [m for name in names for m in module.get_submodule(name).modules()] if piece.residual else []
        for part in parts:
            if isinstance(part, DropPath):
                found[piece.name] = float(part.drop_prob or 0.0)
    return found
