"""Objectives that train paths. They call the functions of :mod:`~polypath.training.sampling`, ``pathwise``, ``gates``,
``distill`` and :mod:`polypath.ensemble`. Settings have the names that the papers use, and each class cites a section of
its paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import FLAG, SHARE, check_fields, each, number, one_of, whole
from polypath.core.execute import Trace
from polypath.core.gating import Over
from polypath.core.later import later
from polypath.core.meta import weightless
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.reuse import in_turn, parts_of
from polypath.ensemble import Ensemble
from polypath.profiling.cost import macs_in_turn
from polypath.storage.loading import load_reported
from polypath.training import pathwise, sampling
from polypath.training.distill import distillation_loss
from polypath.training.gates import rates_or_nan, target_rate_loss
from polypath.training.objectives import BoundObjective, Objective, StepInfo, StepResult

LOCAL = ("local", "mixed", "mixed-a-block")
"""Modes that drop single operands, in all steps or in some steps."""
Mode = Literal["local", "global", "mixed", "one-column-a-block", "mixed-a-block", "uniform", "stochastic-depth"]


@dataclass(frozen=True, kw_only=True)
class OnePath(Objective, kind="path"):
    """Train one fixed path, given by ``paths`` as text. This objective trains the members of an ensemble without shared
    weights."""

    paths: str = "whole"

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        paths = net.paths(self.paths)
        return _Drawn(net, label_smoothing, lambda _: paths)


@dataclass(frozen=True, kw_only=True)
class DropPath(Objective, kind="drop-path"):
    """Train one random sub-network per mini-batch (FractalNet §3.1, CrescendoNet §II-C, Huang et al. 2016).

    Args:
        mode: how to draw the sub-network: ``local``, ``global``, ``mixed``, ``uniform`` or ``stochastic-depth``, see
            :mod:`polypath.training.sampling`. Two more modes are not in the papers: ``one-column-a-block`` draws one
            column for each block, and ``mixed-a-block`` does so for some mini-batches and drops locally for the others.
        rate: drop probability in ``local`` and in the local draws of the mixed modes.
        rates: instead of ``rate``, one probability for each operand of the join with the most operands, in the order of
            the operands. For FractalNet this is one probability per column, as in the authors' code.
        share: in ``mixed`` and ``mixed-a-block``, the share of mini-batches for which columns are drawn.
        same: with ``local``, keep the same set of operands at every join.
        groups: split the mini-batch into this many parts, and draw a sub-network for each part. With 0, each image is a
            part.
    """

    mode: Mode = "local"
    rate: float = 0.15
    share: float = 0.5
    same: bool = False
    groups: int = 1
    rates: tuple[float, ...] = later(())

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = {"rate": SHARE, "rates": each(SHARE), "share": SHARE}
        check_fields(self, "objective", mode=one_of(*get_args(Mode)), same=FLAG, groups=whole(0), **shares)
        if self.rates and self.mode not in LOCAL:
            raise ValueError(f"objective.rates: only modes {', '.join(LOCAL)} use them, but mode is {self.mode!r}")
        if self.same and self.mode != "local":
            raise ValueError(f"objective.same = True: only mode 'local' uses it, but mode is {self.mode!r}")

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        draw = self._draw(net)
        draw(torch.Generator().manual_seed(0))  # raises here if the network does not support this mode
        return _Drawn(net, label_smoothing, draw, self.groups)

    def _draw(self, net: PathNet) -> Callable[[Generator], Paths]:
        rate = sampling.rates_by_label(net.wiring, self.rate, self.rates)
        match self.mode:
            case "local":
                return partial(_local, net.wiring, rate, self.same)
            case "global":
                return partial(sampling.global_drop_path, net, columns=sampling.columns_of(net))
            case "mixed":
                columns = sampling.columns_of(net)
                return lambda g: sampling.mixed_drop_path(net, rate, self.share, g, columns)
            case "one-column-a-block":
                return partial(sampling.one_column_a_block, net)
            case "mixed-a-block":
                return lambda g: sampling.mixed_column_a_block(net, rate, self.share, g)
            case "uniform":
                return partial(sampling.uniform_choice, net.wiring)
            case "stochastic-depth":
                return partial(sampling.stochastic_depth, net.wiring)


class _Drawn(BoundObjective):
    """The objective that minimises the cross-entropy of the paths that ``draw`` returns."""

    def __init__(
        self, net: PathNet, label_smoothing: float, draw: Callable[[Generator], Paths], groups: int = 1
    ) -> None:
        super().__init__(net, label_smoothing)
        self.draw, self.groups = draw, groups

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        if self.groups == 1:
            paths = [self.draw(info.generator)]
            logits = self.net(x, paths=paths[0], generator=info.noise)
        else:
            groups = min(self.groups or len(x), len(x))
            logits, paths = sampling.in_groups(self.net, x, groups, lambda: self.draw(info.generator))
        yield StepResult(self.cross_entropy(logits, y), logits.detach(), paths=paths)


@dataclass(frozen=True, kw_only=True)
class TiedColumns(Objective, kind="tied-columns"):
    """On each mini-batch, train one sample of local drop-path and all C columns, which share weights (FractalNet §3.1).

    loss = ``local`` × cross-entropy(sample) + ``columns`` / C × sum over columns of cross-entropy(column)

    The authors' code uses 1 for ``local`` and for ``columns``. With ``FractalNet(own_norms=True)`` each column has its
    own batch-norms. ``rate`` and ``rates`` have the same meaning as in :class:`DropPath`.
    """

    rate: float = 0.15
    local: float = 1.0
    columns: float = 1.0
    rates: tuple[float, ...] = later(())

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", rate=SHARE, rates=each(SHARE))

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return _Tied(net, label_smoothing, self)


class _Tied(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: TiedColumns) -> None:
        super().__init__(net, label_smoothing)
        self.settings, self.columns = settings, sampling.columns_of(net)
        self.rate = sampling.rates_by_label(net.wiring, settings.rate, settings.rates)

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        local = sampling.local_drop_path(self.net.wiring, self.rate, info.generator)
        share = self.settings.columns / len(self.columns)
        for paths, weight in [(local, self.settings.local), *((column, share) for column in self.columns)]:
            logits = self.net(x, paths=paths, generator=info.noise)
            loss = self.cross_entropy(logits, y)
            name = "local" if paths is local else str(paths)
            yield StepResult(weight * loss, logits.detach(), {f"loss/{name}": loss.detach()}, [paths])


@dataclass(frozen=True, kw_only=True)
class PathWise(Objective, kind="path-wise"):
    """Train one branch of every block at a time, from the shortest to the longest, in cycles: path-wise training
    (CrescendoNet §II-B).

    Args:
        phase_epochs: number of epochs for which one branch learns (the paper does not state this number).
        backward: ``exact`` or ``truncated``, see :mod:`polypath.training.pathwise`.
        rate: drop-path rate of the other branches. The branch that learns is never dropped.
    """

    phase_epochs: int = 1
    backward: pathwise.Backward = "exact"
    rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        legal = one_of(*get_args(pathwise.Backward))
        check_fields(self, "objective", backward=legal, rate=SHARE, phase_epochs=whole(1))

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        pathwise.branches(net.wiring)
        return _PathWise(net, label_smoothing, self)


class _PathWise(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: PathWise) -> None:
        super().__init__(net, label_smoothing)
        self.settings = settings

    def active(self, epoch: int) -> str:
        return pathwise.active_branch(self.net.wiring, epoch, self.settings.phase_epochs)

    def trainable(self, epoch: int) -> frozenset[str]:
        return pathwise.learning_parameters(self.net, self.active(epoch))

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        active, paths = self.active(info.epoch), Paths()
        if self.settings.rate:
            wiring, rate = self.net.wiring, self.settings.rate
            paths = sampling.local_drop_path(wiring, rate, info.generator, keep=active)
        logits = pathwise.path_wise_forward(self.net, x, active, backward=self.settings.backward, paths=paths)
        yield StepResult(self.cross_entropy(logits, y), logits.detach(), paths=[paths])


@dataclass(frozen=True, kw_only=True)
class SharedEnsemble(Objective, kind="ensemble"):
    """Minimise the sum of the losses of several routes, with one forward pass per route (DFN §4). The routes share
    weights but not batch-norm statistics.

    ``routes`` are paths as text; if empty, all named routes of the network are trained.
    """

    routes: tuple[str, ...] = ()

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        texts = self.routes or net.path_sets.get("routes", ())
        if not texts:
            raise ValueError("objective.routes is empty, and this network has no named routes: give at least one route")
        return _Ensemble(net, label_smoothing, texts)


class _Ensemble(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, texts: tuple[str, ...]) -> None:
        super().__init__(net, label_smoothing)
        self.ensemble = Ensemble(net, texts)

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        for name, route in self.ensemble.paths.items():
            logits = self.ensemble.logits(name, x, generator=info.noise)
            loss = self.cross_entropy(logits, y)
            yield StepResult(loss, logits.detach(), {f"loss/{name}": loss.detach()}, [route])

    def predict(self, x: Tensor) -> Tensor:
        return self.ensemble(x)

    @property
    def answers(self) -> tuple[Paths, ...]:
        return tuple(self.ensemble.paths.values())

    def take_statistics(self, stats: BatchNormStatistics) -> None:
        self.ensemble.take_statistics(stats)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.ensemble.get_submodule("members").named_buffers())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = self.state_dict()
        if other := sorted(set(own) ^ set(state)):
            raise ValueError(f"objective state {other[0]!r}: the state belongs to an ensemble of other routes")
        for name, buffer in own.items():
            buffer.copy_(state[name])


@dataclass(frozen=True, kw_only=True)
class TargetRate(Objective, kind="target-rate"):
    """Minimise cross-entropy + ``weight`` · mean over gates of (``target`` − rate)², for a network with gates (DRNN
    §3).

    Args:
        target: target rate t, the share of samples that should pass a gate.
        weight: λ. The DRNN paper does not state it; ConvNet-AIG uses 2 on CIFAR and 1 on ImageNet.
        over: the samples on which the rate is measured: those ``reaching`` the gate, or ``all``.
    """

    target: float = 0.7
    weight: float = 2.0
    over: Over = "reaching"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", target=SHARE, over=one_of(*get_args(Over)))

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        if not any(join.gates for join in net.wiring.joins.values()):
            raise ValueError("objective 'target-rate': this network has no gates whose rate could be trained")
        return _TargetRate(net, label_smoothing, self)


class _TargetRate(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: TargetRate) -> None:
        super().__init__(net, label_smoothing)
        self.settings = settings

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        trace = Trace()
        logits = self.net(x, trace=trace, generator=info.noise)
        off = target_rate_loss(trace, self.settings.target, self.settings.over)
        loss = self.cross_entropy(logits, y)
        parts = {"loss/cross_entropy": loss.detach(), "loss/rate": off.detach()}
        rates = rates_or_nan(trace, self.settings.over)
        parts |= {f"rate/{switch}/{label}": rate.detach() for (switch, label), rate in rates.items()}
        yield StepResult(loss + self.settings.weight * off, logits.detach(), parts, [Paths()])


@dataclass(frozen=True, kw_only=True)
class Distil(Objective, kind="distil"):
    """Train the whole network on the labels and, on the same mini-batch, a path on the outputs of the whole network.

    loss = cross-entropy(whole) + ``labels`` · cross-entropy(path) + ``weight`` · T² KL(whole ‖ path)

    Args:
        paths: paths as text. For each mini-batch, one path is drawn uniformly.
        whole: if False, the loss does not include its first term, and the whole network is only the teacher.
    """

    paths: tuple[str, ...] = ()
    temperature: float = 4.0
    weight: float = 0.9
    labels: float = 0.1
    whole: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", temperature=number(above=0), whole=FLAG)
        if not self.paths:
            raise ValueError("objective.paths is empty: give at least one path to train")

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return _Distil(net, label_smoothing, self)


class _Distil(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: Distil) -> None:
        super().__init__(net, label_smoothing)
        self.settings, self.students = settings, [net.paths(text) for text in settings.paths]

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        s = self.settings
        with torch.set_grad_enabled(s.whole and torch.is_grad_enabled()):
            teacher = self.net(x, generator=info.noise)
        taught = teacher.detach()
        if s.whole:
            loss = self.cross_entropy(teacher, y)
            yield StepResult(loss, taught, {"loss/whole": loss.detach()}, [Paths()])
        paths = self.students[int(torch.randint(len(self.students), (), generator=info.generator))]
        student = self.net(x, paths=paths, generator=info.noise)
        on_labels, on_whole = self.cross_entropy(student, y), distillation_loss(student, taught, s.temperature)
        parts = {"loss/path": on_labels.detach(), "loss/distilled": on_whole.detach()}
        yield StepResult(s.labels * on_labels + s.weight * on_whole, student.detach(), parts, [paths])


@dataclass(frozen=True, kw_only=True)
class Taught(Objective, kind="taught"):
    """Train the network on the labels and on the outputs of a trained teacher network (Hinton et al. 2015).

    loss = ``labels`` · cross-entropy + ``weight`` · T² KL(teacher ‖ network)

    The teacher is in evaluation mode.

    Args:
        teacher: folder of a saved network or of a finished run, or ``pretrained`` (the network that comes with the
            package). The run keeps a copy of this network.
    """

    teacher: str = ""
    temperature: float = 4.0
    weight: float = 0.9
    labels: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", temperature=number(above=0), weight=number(0), labels=number(0))
        if not self.teacher:
            raise ValueError("objective.teacher is empty: give the folder of a saved network or of a finished run")

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return _Taught(net, label_smoothing, self)


class _Taught(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: Taught) -> None:
        super().__init__(net, label_smoothing)
        teacher = load_reported(settings.teacher, device=next(net.parameters()).device)
        if teacher.num_classes != net.num_classes:
            known = f"the teacher has {teacher.num_classes} classes, but this network has {net.num_classes}"
            raise ValueError(f"objective.teacher = {settings.teacher!r}: {known}")
        self.settings, self.teachers = settings, (teacher.requires_grad_(False),)

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        with torch.no_grad():
            taught = self.teachers[0](x)
        logits = self.net(x, generator=info.noise)
        on_labels = self.cross_entropy(logits, y)
        on_teacher = distillation_loss(logits, taught, self.settings.temperature)
        loss = self.settings.labels * on_labels + self.settings.weight * on_teacher
        parts = {"loss/labels": on_labels.detach(), "loss/teacher": on_teacher.detach()}
        yield StepResult(loss, logits.detach(), parts, [Paths()])


@dataclass(frozen=True, kw_only=True)
class Exits(Objective, kind="exits"):
    """Train several paths on each mini-batch. Units that several paths share run only once (Lee et al. 2015; Huang et
    al. 2018, §4).

    loss = sum over paths of weight · cross-entropy(path), as for the heads of deeply-supervised nets and MSDNet

    Args:
        paths: paths as text; if empty, the exits of the network and the whole network are trained.
        weights: one weight per path, in the order of ``paths``; if empty, all weights are 1, as in MSDNet.
    """

    paths: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "objective", weights=each(number(0)))

    def bind(self, net: PathNet, *, label_smoothing: float = 0.0) -> BoundObjective:
        return _Exits(net, label_smoothing, self)


class _Exits(BoundObjective):
    def __init__(self, net: PathNet, label_smoothing: float, settings: Exits) -> None:
        super().__init__(net, label_smoothing)
        self.names = settings.paths or tuple(net.path_set("exits"))
        if not self.names:
            raise ValueError("objective 'exits': this network has no exits; set --model.exits, or objective.paths")
        if settings.weights and len(settings.weights) != len(self.names):
            raise ValueError(
                f"objective.weights = {settings.weights}: must have length {len(self.names)}, one weight for each of "
                f"{', '.join(self.names)}"
            )
        self.weights = settings.weights or (1.0,) * len(self.names)
        self.parts = parts_of(net, self.names)
        self.twin, self.macs = weightless(net), dict[tuple[int, int], int]()  # before the units are compiled

    def passes(self, x: Tensor, y: Tensor, info: StepInfo) -> Iterator[StepResult]:
        logits = list(in_turn(self.net, x, parts=self.parts, generator=info.noise))
        losses = [self.cross_entropy(z, y) for z in logits]
        total = torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()
        parts = {f"loss/{name}": loss.detach() for name, loss in zip(self.names, losses, strict=True)}
        size = (x.shape[-2], x.shape[-1])
        if size not in self.macs:
            self.macs[size] = sum(macs_in_turn(self.twin, self.names, size))
        yield StepResult(total, logits[-1].detach(), parts, [paths for paths, _ in self.parts], self.macs[size])


def _local(wiring: Any, rate: sampling.Rate, same: bool, generator: Generator) -> Paths:
    return sampling.local_drop_path(wiring, rate, generator, same=same)
