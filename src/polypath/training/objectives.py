"""Objectives: the forwards and the loss of a training step, as settings and as a thin object bound to a network.

An :class:`Objective` is a frozen dataclass of JSON values. Its :meth:`Objective.bind` gives a :class:`BoundObjective`
for one network, whose :meth:`BoundObjective.passes` yields one :class:`StepResult` for each forward of a step. The
step's loss is the *sum* of the passes' losses. So a loop may call backward after each pass, and then only one pass's
activations are in memory::

    bound = objective.bind(net)
    for part in bound.passes(x, y, StepInfo(epoch, step, steps_per_epoch, epochs, generator)):
        part.loss.backward()
    optimizer.step()

or call :meth:`BoundObjective.step`, which returns the sum. Objectives are built from plain functions
(:mod:`polypath.training.sampling`, :mod:`~polypath.training.pathwise`, :mod:`~polypath.training.gates`,
:mod:`~polypath.training.distill`), which also work in a hand-written loop.
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
    """Progress of training, and the generators of a step. Both are on the CPU: ``generator`` draws the paths and is the
    same for all parts of a batch and all ranks. ``noise`` draws per-image numbers (gates) and differs between parts if
    ``part_generator`` is given."""

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
        logits: ``(N, classes)`` in the order of the images, detached; used for the training error.
        parts: named scalars for the log, detached; NaN if there was nothing to measure.
        paths: the paths that ran.
        macs: MACs per image that ran outside the network's own call; those of the call are counted by a hook.
    """

    loss: Tensor
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    paths: list[Paths] = field(default_factory=list)
    macs: int = 0


class BoundObjective:
    """An objective on one network. Subclasses implement :meth:`passes`.

    Attributes:
        net: the network.
        label_smoothing: label smoothing of every cross-entropy.
        teachers: other networks that ``net`` learns from.
    """

    teachers: tuple[PathNet, ...] = ()

    def __init__(self, net: PathNet, label_smoothing: float = 0.0) -> None:
        self.net = net
        self.label_smoothing = label_smoothing

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        """The forwards of a step on images ``(N, C, H, W)``; ``y`` are labels ``(N,)`` or soft labels ``(N, classes)``.

        Their losses sum to the step's loss. Backward of a pass may run before the next pass is requested.
        """
        raise NotImplementedError

    def step(self, x: Tensor, y: Tensor, info: StepInfo) -> StepResult:
        """Run all passes: the sum of their losses, and the first pass's logits."""
        results = list(self.passes(x, y, info))
        total = StepResult(torch.stack([r.loss for r in results]).sum(), results[0].logits)
        for result in results:
            total.parts.update(result.parts)
            total.paths.extend(result.paths)
            total.macs += result.macs
        return total

    def trainable(self, epoch: int) -> frozenset[str] | None:
        """Names of the parameters that learn in ``epoch`` (from 0); None for all. A pure function of the epoch.

        When the set changes, a loop should release gradients and optimiser state of the others
        (:func:`polypath.training.pathwise.release`).
        """
        return None

    def predict(self, x: Tensor) -> Tensor:
        """Prediction of the trained network: logits or log-probabilities ``(N, classes)``. For use in eval mode."""
        return self.net(x)

    @property
    def answers(self) -> tuple[Paths, ...]:
        """The paths that :meth:`predict` runs."""
        return (Paths(),)

    def take_statistics(self, stats: BatchNormStatistics) -> None:
        """Make :meth:`predict` use these batch-norm statistics, recalibrated for each of :attr:`answers`."""
        bake(self.net, stats[Paths()])

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must hold beside the network's; not copies. Most objectives have none."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of :meth:`state_dict`.

        Raises:
            ValueError: a state of another objective.
        """
        if state:
            raise ValueError(f"objective state {sorted(state)[0]!r}: {type(self).__name__} has no state")

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(N, classes)`` and labels ``(N,)`` or soft labels ``(N, classes)``."""
        logits = at_least_float32(logits)
        return F.cross_entropy(
            logits, y.to(logits.dtype) if y.is_floating_point() else y, label_smoothing=self.label_smoothing
        )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Base class of objectives: settings that are JSON values, and :meth:`bind`.

    ``class Mine(Objective, kind="mine")`` registers a new objective, so that its runs can be loaded.
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
        """Check the settings against ``net`` and return the object that runs its steps.

        Raises:
            ValueError: settings that this network does not support.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Objective:
        """Read the result of :meth:`to_json`.

        Raises:
            ValueError: an unknown kind or field, or an illegal value of a field.
        """
        cls, settings = Objective.kind_of(values)
        return decode(settings, cls, f"objective {cls.kind!r}")

    @staticmethod
    def kind_of(values: dict[str, Any]) -> tuple[type[Objective], dict[str, Any]]:
        """The class that ``values["kind"]`` names, and its settings.

        Raises:
            ValueError: an unknown kind.
        """
        settings = dict(decode(values, dict[str, Any], "objective"))
        kind = settings.pop("kind", None)
        check("objective.kind", kind, one_of(*OBJECTIVES))
        return OBJECTIVES[kind], settings


@dataclass(frozen=True, kw_only=True)
class Whole(Objective, kind="whole"):
    """Cross-entropy of the whole network, in one pass."""

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return BoundWhole(net, label_smoothing)


class BoundWhole(BoundObjective):
    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        logits = self.net(x, generator=info.noise)
        yield StepResult(self.cross_entropy(logits, y), logits.detach(), paths=[Paths()])
