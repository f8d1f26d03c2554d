"""The sandwich rule and self-distillation: on each mini-batch the whole network learns the labels, and other paths
learn from the whole network.

By the *sandwich rule* (Yu and Huang 2019), each step trains the whole network, the cheapest path, and some randomly
drawn paths in between. By *in-place distillation* (same paper), the other paths learn the outputs of the whole network
in the same step. Every pass is a separate forward pass. The step's loss is the sum of the passes' losses, so each pass
has its own backward pass, and gradients accumulate.

The running batch-norm statistics are those of the whole network. Passes of other paths normalise with batch statistics.
They update only norms that the whole network never runs: those of an exit, or of a column with separate norms. The
other paths are recalibrated when they are evaluated. With ``norms = frozen``, all passes use the network's running
statistics instead, and no path is recalibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Generator, Tensor

from polypath.core.batchnorm import batch_statistics, norms_under
from polypath.core.checks import SHARE, check_fields, each, number, one_of, whole
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.profiling.cost import PathMacs
from polypath.training import sampling
from polypath.training.distill import alpha_divergence_loss, distillation_loss
from polypath.training.objectives import BoundObjective, Objective, StepInfo, StepResult

Distillation = Literal["kl", "alpha-divergence"]
Draw = Literal["paths", "local", "uniform"]
Curriculum = Literal["none", "cheapest-first", "cheapest-last"]
LEAST = 2  # images; one image with a 1×1 feature map has no variance


@dataclass(frozen=True, kw_only=True)
class Sandwich(Objective, kind="sandwich"):
    """On each mini-batch, train the whole network, the cheapest path and some randomly drawn paths (Yu and Huang 2019).

    loss = cross-entropy(whole) + sum over the other paths of ``labels`` · cross-entropy + (1 − ``labels``) · D

    The term of each path is multiplied by the path's weight. D is the divergence between the outputs of the path and
    those of the whole network. No gradient of D reaches the whole network's pass.

    Args:
        paths: paths that learn in addition to the whole network: paths as text, or names of the network's path sets
            (``columns``, ``exits``, …). If empty, all named paths of the network learn, or the shallowest path if there
            are no named paths. The cheapest path is the one with the fewest MACs.
        draws: number of paths to draw in each step, in addition to the cheapest path.
        draw: where drawn paths come from. ``paths``: from ``paths``, without replacement. ``local`` and ``uniform``:
            from all choices of the wiring, including switches. ``local`` drops each operand with probability ``rate``.
            With ``uniform``, all sets of operands are equally likely.
        rate: drop probability of ``local``.
        images: share of a mini-batch's images on which the other paths learn: its first images. The whole network
            learns on all images.
        labels: weight of the cross-entropy for the other paths; D has weight 1 − ``labels``. With 1 there is no
            distillation.
        distillation: the divergence D: ``kl`` is T² KL(whole ‖ path), ``alpha-divergence`` is AlphaNet's adaptive
            α-divergence.
        temperature: T.
        alphas, clip: α−, α+ and the clip of ``alpha-divergence``, see
            :func:`polypath.training.distill.alpha_divergence_loss`.
        weights: one weight for the whole network, then one weight for each of ``paths``; if empty, all weights are 1.
            Any other drawn path has weight 1.
        curriculum: with ``cheapest-first`` or ``cheapest-last``, the whole network starts alone, and the paths join one
            by one in this order.
        until: with a curriculum, the share of the epochs after which all paths have joined.
    """

    paths: tuple[str, ...] = ()
    draws: int = 1
    draw: Draw = "paths"
    rate: float = 0.5
    images: float = 1.0
    labels: float = 0.0
    distillation: Distillation = "kl"
    temperature: float = 1.0
    alphas: tuple[float, float] = (-1.0, 1.0)
    clip: float = 5.0
    weights: tuple[float, ...] = ()
    curriculum: Curriculum = "none"
    until: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            "objective",
            draws=whole(0),
            draw=one_of(*get_args(Draw)),
            rate=SHARE,
            images=number(above=0, high=1),
            labels=SHARE,
            distillation=one_of(*get_args(Distillation)),
            temperature=number(above=0),
            alphas=each(number(), 2),
            clip=number(above=0),
            weights=each(number(0)),
            curriculum=one_of(*get_args(Curriculum)),
            until=SHARE,
        )
        if self.curriculum != "none" and self.draw != "paths":
            raise ValueError(
                f"objective.curriculum = {self.curriculum!r}: paths drawn as {self.draw!r} have no order to join in; "
                "use draw 'paths', or curriculum 'none'"
            )

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return _Sandwich(net, label_smoothing, self)


@dataclass(frozen=True, kw_only=True)
class SelfDistilled(Objective, kind="self-distilled"):
    """Train the whole network on the labels, and its base path on the outputs of the whole network (Kang and Lee 2024).

    loss = (1 − ``weight``) · cross-entropy(whole) + ``weight`` · T² KL(whole ‖ base)

    The skipped layers learn to refine the output of the base path's layers, so paths in between need no separate
    training. Unlike in the paper, the base path has no separate norms. Paths are recalibrated when they are evaluated.

    Args:
        base: the path that skips every skippable block, as text. If empty, the cheapest named path of the network is
            used.
        images: share of a mini-batch's images on which the base path learns.
        weight: weight of the base path's term in the loss.
    """

    base: str = ""
    temperature: float = 1.0
    images: float = 1.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", temperature=number(above=0), images=number(above=0, high=1), weight=SHARE)

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        base = self.base or str(cheapest_of(net, participants(net, ())))
        weights = (1.0 - self.weight, self.weight)
        both = Sandwich(paths=(base,), draws=0, images=self.images, temperature=self.temperature, weights=weights)
        return _Sandwich(net, label_smoothing, both)


class _Sandwich(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: Sandwich) -> None:
        super().__init__(net, label_smoothing)
        _check_survival(net)
        self.settings, self.paths = settings, participants(net, settings.paths)
        if settings.weights and len(settings.weights) != 1 + len(self.paths):
            names = ", ".join(("whole", *map(str, self.paths)))
            raise ValueError(
                f"objective.weights = {settings.weights}: must have length {1 + len(self.paths)}, one weight for each "
                f"of {names}"
            )
        self.weights = dict(zip((Paths(), *self.paths), settings.weights, strict=False))
        self.macs = PathMacs(net)
        self.wholes = list(norms_under(net, Paths()).values())
        self.ordered: dict[tuple[int, int], list[Paths]] = {}

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        students = self.drawn(x, info)
        logits = self.net(x, generator=info.noise)
        loss, teacher = self.cross_entropy(logits, y), logits.detach()
        yield StepResult(self._weight(Paths()) * loss, teacher, {"loss/whole": loss.detach()}, [Paths()])
        images = min(len(x), max(LEAST, math.ceil(self.settings.images * len(x))))
        x, y, teacher = x[:images], y[:images], teacher[:images]
        for i, paths in enumerate(students):
            with batch_statistics(self.wholes):
                logits = self.net(x, paths=paths, generator=info.noise)
            loss = self._taught(logits, teacher, y)
            name, among = ("drawn", len(students) - 1) if i else ("cheapest", 1)
            parts = {f"loss/{name}": loss.detach() / among}
            yield StepResult(self._weight(paths) * loss, logits.detach(), parts, [paths])

    def drawn(self, x: Tensor, info: StepInfo) -> list[Paths]:
        """Return the paths that learn in addition to the whole network in this step, the cheapest first."""
        s, size = self.settings, (x.shape[-2], x.shape[-1])
        if size not in self.ordered:
            self.ordered[size] = by_macs(self.macs, self.paths, size)
        ordered = self.ordered[size]
        if s.curriculum != "none":
            first = s.curriculum == "cheapest-first"
            ordered = sampling.joined(ordered, info.epoch, info.epochs, cheapest_first=first, until=s.until)
        if s.draw == "paths":
            return sampling.sandwich(ordered, s.draws, info.generator)
        return [ordered[0], *(self._any(info.generator) for _ in range(s.draws))]

    def _any(self, generator: Generator) -> Paths:
        wiring = self.net.wiring
        if self.settings.draw == "local":
            return sampling.local_drop_path(wiring, self.settings.rate, generator, switches=True)
        return sampling.uniform_choice(wiring, generator, switches=True)

    def _taught(self, logits: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
        s = self.settings
        if s.labels == 1.0:
            return self.cross_entropy(logits, y)
        if s.distillation == "kl":
            taught = distillation_loss(logits, teacher, s.temperature)
        else:
            taught = alpha_divergence_loss(logits, teacher, s.temperature, alphas=s.alphas, clip=s.clip)
        return taught if s.labels == 0.0 else s.labels * self.cross_entropy(logits, y) + (1.0 - s.labels) * taught

    def _weight(self, paths: Paths) -> float:
        return self.weights.get(paths, 1.0)


def participants(net: PathNet, texts: Sequence[str]) -> list[Paths]:
    """Return the paths in ``texts`` (paths as text, or names of path sets), in this order, without the whole network.
    If ``texts`` is empty, return all named paths of the network, or the shallowest path if there are none.

    Raises:
        ValueError: a path is unknown, or there is no path except the whole network.
    """
    found: dict[Paths, None] = {}
    for text in texts:
        known = net.path_set(text) if text in net.path_sets else {text: net.paths(text)}
        found |= dict.fromkeys(known.values())
    if not texts:
        named = [paths for paths in net.named_paths().values() if paths]
        found = dict.fromkeys(named or [sampling.shallowest(net.wiring)])
    found.pop(Paths(), None)
    if not found:
        raise ValueError("objective.paths: contains only the whole network; give a path that leaves out something")
    return list(found)


def by_macs(macs: PathMacs, paths: Sequence[Paths], size: tuple[int, int]) -> list[Paths]:
    """Sort the paths by their MACs at the image size ``size``, the cheapest first."""
    return sorted(paths, key=lambda p: (macs(p, size)[0], str(p)))


def cheapest_of(net: PathNet, paths: Sequence[Paths]) -> Paths:
    """Return the path with the fewest MACs on the smallest images that the network accepts."""
    return by_macs(PathMacs(net), paths, (net.min_size, net.min_size))[0]


def _check_survival(net: PathNet) -> None:
    sums = [join for join in net.wiring.joins.values() if join.kind == "sum"]
    if any(operand.survival < 1.0 for join in sums for operand in join.operands):
        raise ValueError(
            "model.survival is below 1: evaluation would multiply operands by this value, but training with this "
            "objective has no stochastic depth; set --model.survival 1"
        )
