"""Objectives: what one training step runs and what it minimises, as settings and as a thin object bound to a network.

An :class:`Objective` is a frozen dataclass of JSON values. Bound to a network it is a :class:`BoundObjective`, whose
:meth:`BoundObjective.passes` yields one :class:`StepResult` for each forward of a step. The step's loss is the *sum* of
the passes' losses, so a loop may call backward after each pass (one pass' activations at a time)::

    bound = objective.bind(net)
    for part in bound.passes(x, y, StepInfo(epoch, step, steps_per_epoch, epochs, generator)):
        part.loss.backward()
    optimizer.step()

or take :meth:`BoundObjective.step`, the sum at once. What objectives do is in plain functions
(:mod:`polypath.training.sampling`, :mod:`~polypath.training.pathwise`, :mod:`~polypath.training.gates`,
:mod:`~polypath.training.distill`), which work in a hand-written loop as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polypath.core.batchnorm import BatchNormStatistics, bake
from polypath.core.checks import check, one_of, plain_fields
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.precision import at_least_float32
from polypath.storage.decode import decode

OBJECTIVES: dict[str, type[Objective]] = {}


@dataclass(frozen=True)
class StepInfo:
    """Where training stands. All that a step draws comes from two CPU generators of its own: the choice of paths from
    ``generator``, which all parts of a batch and all ranks have alike, and what is drawn for each image (gates) from
    ``noise``, which is the part's own where ``part_generator`` is given."""

    epoch: int
    step: int
    steps_per_epoch: int
    epochs: int
    generator: torch.Generator
    part_generator: torch.Generator | None = None

    @property
    def noise(self) -> torch.Generator:
        return self.generator if self.part_generator is None else self.part_generator


@dataclass
class StepResult:
    """One pass, or a step's sum of them.

    Attributes:
        loss: scalar, with graph; already weighted.
        logits: ``(N, classes)`` of the images in their order, detached; what a training error is counted on.
        parts: named scalars for the log, detached; NaN where there was nothing to measure.
        paths: the choices that ran.
        macs: of one image, of what ran otherwise than by the network's own call, which is counted where it is made.
    """

    loss: Tensor
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    paths: list[Paths] = field(default_factory=list)
    macs: int = 0


class BoundObjective:
    """An objective on one network. Subclasses give :meth:`passes`.

    Attributes:
        net: the network.
        label_smoothing: of every cross-entropy.
        teachers: other networks, which it learns from.
    """

    teachers: tuple[PathNet, ...] = ()

    def __init__(self, net: PathNet, label_smoothing: float = 0.0) -> None:
        self.net = net
        self.label_smoothing = label_smoothing

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        """The forwards of one step on images ``(N, C, H, W)``; ``y`` are labels ``(N,)`` or shares ``(N, classes)``.

        Their losses sum to the step's. A pass may be backpropagated before the next is asked for.
        """
        raise NotImplementedError

    def step(self, x: Tensor, y: Tensor, info: StepInfo) -> StepResult:
        """All passes at once: losses summed, the first pass' logits."""
        results = list(self.passes(x, y, info))
        total = StepResult(torch.stack([r.loss for r in results]).sum(), results[0].logits)
        for result in results:
            total.parts.update(result.parts)
            total.paths.extend(result.paths)
            total.macs += result.macs
        return total

    def trainable(self, epoch: int) -> frozenset[str] | None:
        """Names of the parameters that learn in ``epoch`` (from 0); None for all. A pure function of the epoch.

        Where the set changes, a loop lets go of the others' gradients and optimiser state
        (:func:`polypath.training.pathwise.release`).
        """
        return None

    def predict(self, x: Tensor) -> Tensor:
        """What the trained network answers: logits or log-probabilities ``(N, classes)``. For use in eval mode."""
        return self.net(x)

    @property
    def answers(self) -> tuple[Paths, ...]:
        """The paths that :meth:`predict` runs."""
        return (Paths(),)

    def take_statistics(self, stats: BatchNormStatistics) -> None:
        """Let :meth:`predict` run with other batch-norm statistics, re-estimated for each of :attr:`answers`."""
        bake(self.net, stats[Paths()])

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must hold beside the network's, themselves and not copies; mostly none."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            ValueError: a state of another objective.
        """
        if state:
            raise ValueError(f"objective state {sorted(state)[0]!r}: {type(self).__name__} keeps none")

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(N, classes)`` and labels ``(N,)`` or shares ``(N, classes)``."""
        logits = at_least_float32(logits)
        return F.cross_entropy(
            logits, y.to(logits.dtype) if y.is_floating_point() else y, label_smoothing=self.label_smoothing
        )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Base of the objectives: settings that are JSON values, and :meth:`bind`.

    ``class Mine(Objective, kind="mine")`` makes runs of it loadable.
    """

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        plain_fields(self)

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind = kind
            OBJECTIVES[kind] = cls

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        """Check the settings against ``net`` and give what runs its steps.

        Raises:
            ValueError: settings that this network cannot follow.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Objective:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: an unknown kind or field, or a value that a field refuses.
        """
        cls, settings = Objective.kind_of(values)
        return decode(settings, cls, f"objective {cls.kind!r}")

    @staticmethod
    def kind_of(values: dict[str, Any]) -> tuple[type[Objective], dict[str, Any]]:
        """The class that the values' ``kind`` names, and its settings.

        Raises:
            ValueError: an unknown kind.
        """
        settings = dict(decode(values, dict[str, Any], "objective"))
        kind = settings.pop("kind", None)
        check("objective.kind", kind, one_of(*OBJECTIVES))
        return OBJECTIVES[kind], settings


@dataclass(frozen=True, kw_only=True)
class Whole(Objective, kind="whole"):
    """Cross-entropy of the whole network, one pass."""

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return BoundWhole(net, label_smoothing)


class BoundWhole(BoundObjective):
    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        logits = self.net(x, generator=info.noise)
        yield StepResult(self.cross_entropy(logits, y), logits.detach(), paths=[Paths()])
