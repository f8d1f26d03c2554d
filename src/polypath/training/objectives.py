"""Objectives. An objective defines the forward passes and the loss of a training step.

An :class:`Objective` holds the settings, as a frozen dataclass of JSON values. :meth:`Objective.bind` returns a
:class:`BoundObjective` for one network. :meth:`BoundObjective.passes` yields one :class:`StepResult` for each forward
pass of a step. The step's loss is the *sum* of the passes' losses. So a loop may call backward after each pass, and
then the activations of only one pass are in memory::

    bound = objective.bind(net)
    for part in bound.passes(x, y, StepInfo(epoch, step, steps_per_epoch, epochs, generator)):
        part.loss.backward()
    optimizer.step()

Alternatively, call :meth:`BoundObjective.step`, which returns the sum. Objectives are built from plain functions
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
    """The progress of training, and a step's random generators, which are on the CPU.

    Paths are drawn from ``generator``, which is the same for all parts of a batch and, by default, for all ranks.
    Per-image numbers, such as the noise of gates, are drawn from ``noise``. ``noise`` is ``part_generator``, which
    differs between the parts of a batch, or ``generator`` if ``part_generator`` is None.
    """

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
    """The result of one pass, or the sum of a step's passes.

    Attributes:
        loss: scalar with autograd graph, already multiplied by the weight of the pass.
        logits: ``(N, classes)`` in the order of the images, detached; used for the training error.
        parts: named scalars for the log, detached; NaN if there was nothing to measure.
        paths: the paths that ran.
        macs: MACs per image of modules that ran without a call of the network. (A hook counts the MACs of calls.)
    """

    loss: Tensor
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    paths: list[Paths] = field(default_factory=list)
    macs: int = 0


class BoundObjective:
    """An objective that is bound to one network. Subclasses implement :meth:`passes`.

    Attributes:
        net: the network.
        label_smoothing: label smoothing in each cross-entropy.
        teachers: other networks that ``net`` learns from.
    """

    teachers: tuple[PathNet, ...] = ()

    def __init__(self, net: PathNet, label_smoothing: float = 0.0) -> None:
        self.net = net
        self.label_smoothing = label_smoothing

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        """Run the forward passes of a step, on images ``(N, C, H, W)`` and labels ``(N,)`` or soft labels
        ``(N, classes)``.

        The step's loss is the sum of the losses of the passes. A loop may run backward for a pass before it requests
        the next pass.
        """
        raise NotImplementedError

    def step(self, x: Tensor, y: Tensor, info: StepInfo) -> StepResult:
        """Run all passes, and return the sum of their losses with the logits of the first pass."""
        results = list(self.passes(x, y, info))
        total = StepResult(torch.stack([r.loss for r in results]).sum(), results[0].logits)
        for result in results:
            total.parts.update(result.parts)
            total.paths.extend(result.paths)
            total.macs += result.macs
        return total

    def trainable(self, epoch: int) -> frozenset[str] | None:
        """Return the names of the parameters that learn in ``epoch`` (counted from 0), or None for all. The result
        depends only on the epoch.

        When the set changes, a loop should release the gradients and the optimiser's state of all other parameters
        (:func:`polypath.training.pathwise.release`).
        """
        return None

    def predict(self, x: Tensor) -> Tensor:
        """Predict logits or log-probabilities ``(N, classes)`` with the trained network. Call it in evaluation mode."""
        return self.net(x)

    @property
    def answers(self) -> tuple[Paths, ...]:
        """The paths that :meth:`predict` runs."""
        return (Paths(),)

    def take_statistics(self, stats: BatchNormStatistics) -> None:
        """Make :meth:`predict` use ``stats``, the recalibrated batch-norm statistics of each path in
        :attr:`answers`."""
        bake(self.net, stats[Paths()])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the objective's own tensors (not copies) for a checkpoint. Most objectives have none."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the tensors that :meth:`state_dict` returned.

        Raises:
            ValueError: the state is of another objective.
        """
        if state:
            raise ValueError(
                f"the checkpoint has objective state {sorted(state)[0]!r}, but {type(self).__name__} has no state"
            )

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Compute the mean cross-entropy of logits ``(N, classes)`` and labels ``(N,)`` or soft labels
        ``(N, classes)``."""
        logits = at_least_float32(logits)
        return F.cross_entropy(
            logits, y.to(logits.dtype) if y.is_floating_point() else y, label_smoothing=self.label_smoothing
        )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The base class of objectives: a dataclass of settings (JSON values) with a method :meth:`bind`.

    ``class Mine(Objective, kind="mine")`` registers a new kind of objective, so that runs with it can be loaded.
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
        """Check the settings against ``net`` and return the object that runs the training steps.

        Raises:
            ValueError: the network does not support the settings.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Objective:
        """Build an objective from the result of :meth:`to_json`.

        Raises:
            ValueError: the kind or a field is unknown, or the value of a field is illegal.
        """
        cls, settings = Objective.kind_of(values)
        return decode(settings, cls, f"objective {cls.kind!r}")

    @staticmethod
    def kind_of(values: dict[str, Any]) -> tuple[type[Objective], dict[str, Any]]:
        """Return the objective class of ``values["kind"]``, and its settings.

        Raises:
            ValueError: the kind is unknown.
        """
        settings = dict(decode(values, dict[str, Any], "objective"))
        kind = settings.pop("kind", None)
        check("objective.kind", kind, one_of(*OBJECTIVES))
        return OBJECTIVES[kind], settings


@dataclass(frozen=True, kw_only=True)
class Whole(Objective, kind="whole"):
    """Train the whole network with cross-entropy, in one pass."""

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return BoundWhole(net, label_smoothing)


class BoundWhole(BoundObjective):
    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        logits = self.net(x, generator=info.noise)
        yield StepResult(self.cross_entropy(logits, y), logits.detach(), paths=[Paths()])
