"""Recipes. A recipe is a frozen dataclass of JSON values: all settings that determine the result of a training run.

    recipe = Recipe(name="mine", model=CrescendoNet(widths=(32, 32, 32)), epochs=12, batch_size=64)
    result = train(recipe, "runs/mine")                       # polypath.training.loop

``model`` holds the settings of one family and ``objective`` those of one objective, so the fields of ``model`` and
``objective`` differ between recipes. If the paper does not state the value of a field, ``assumed`` maps the field's
dotted name to the reason for our value.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from polypath.core.checks import (
    FLAG,
    NAME,
    SHARE,
    Rule,
    check_fields,
    each,
    instance,
    number,
    one_of,
    optional,
    plain_fields,
    whole,
)
from polypath.core.later import later
from polypath.data.config import DataConfig
from polypath.families.base import Family
from polypath.families.registry import get_family
from polypath.storage.decode import decode
from polypath.training.objectives import Objective, Whole
from polypath.training.optim import OptimConfig
from polypath.training.schedules import ScheduleConfig

Precision = Literal["fp32", "bf16", "fp16", "auto"]
Norms = Literal["trained", "frozen"]
Tracker = Literal["none", "wandb", "trackio"]
_WORD = Rule(
    "a word without blanks and slashes, since it is also the name of the run folder",
    lambda value: isinstance(value, str) and re.fullmatch(r"[^./\\\s][^/\\\s]*", value) is not None,
)
_FOLDER = Rule("a folder", lambda value: isinstance(value, str))
_IMAGES = Rule("0 or a whole number of at least 2", lambda value: whole(0).fits(value) and value != 1)
_REASONS = Rule(
    "a table of field names and reasons",
    lambda value: isinstance(value, dict) and all(isinstance(why, str) for why in value.values()),
)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Settings for a run on several processes (``torchrun``). A single process uses only ``batch_norm`` and
    ``ghost_images``.

    Args:
        strategy: ``ddp`` keeps a copy of the network on every rank; ``fsdp`` shards the network over the ranks (FSDP2).
        paths: ``same``: in each step all ranks train the same randomly drawn path. ``rank``: each rank draws a path for
            itself (``ddp`` only).
        batch_norm: the images on which batch statistics are computed. ``rank``: the rank's part of the batch. ``sync``:
            the batch of all ranks. ``ghost``: ``ghost_images`` images at a time.
        ghost_images: images per ghost batch. The papers had 32 (DFN) and 16 (GUNN) images on each GPU.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    paths: Literal["same", "rank"] = "same"
    batch_norm: Literal["rank", "sync", "ghost"] = "rank"
    ghost_images: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(
            self,
            "parallel",
            strategy=one_of("ddp", "fsdp"),
            paths=one_of("same", "rank"),
            batch_norm=one_of("rank", "sync", "ghost"),
            ghost_images=whole(0),
        )
        if self.strategy == "fsdp" and self.paths == "rank":
            raise ValueError("parallel.paths = 'rank': FSDP2 needs the same path on every rank; use strategy 'ddp'")
        if self.batch_norm == "sync" and self.paths == "rank":
            raise ValueError("parallel.batch_norm = 'sync': needs the same path on every rank; use paths 'same'")
        if (self.batch_norm == "ghost") != (self.ghost_images > 0):
            raise ValueError(
                f"parallel.ghost_images = {self.ghost_images} with batch_norm {self.batch_norm!r}: "
                "must be above 0 if batch_norm is 'ghost', and 0 otherwise"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one training run.

    Args:
        name: name of the recipe, and by default of its run folder.
        model: the network, as settings of its family.
        path: train only this path of the network, extracted as by :func:`polypath.extract`; ``whole`` trains the whole
            network.
        data: images, splits, augmentation.
        optim, schedule: the optimiser and the learning-rate schedule.
        objective: which paths a step runs and what it minimises.
        epochs: passes over the training images.
        batch_size: images per optimiser step, over all ranks.
        accumulate: gradient accumulation: split a rank's images into this many parts, and run forward and backward on
            one part after the other.
        seed: seed of the initial weights, the order of images, augmentation, dropout and drawn paths.
        init: network from which the initial weights are copied: the folder of a saved model or run, ``pretrained`` (the
            network that comes with the package) or ``timm:NAME`` (a timm model), see :mod:`polypath.training.start`.
            ``model`` must match that network, except for the number of classes. If the classes differ, the classifier
            is new.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: precision of the forward pass. Weights and the optimiser's state stay in float32. ``auto`` is bf16 if
            the device has instructions for it, else fp32; the run's ``recipe.json`` records the choice.
        channels_last: use the channels-last memory layout.
        compile: ``torch.compile`` each unit.
        deterministic: on CUDA, use deterministic algorithms. Results are then bitwise repeatable, and training is
            somewhat slower.
        label_smoothing: share of the target probability that is spread over all classes.
        mixup, cutmix: alpha of the Beta distribution of mixup and of cutmix (timm); 0 switches it off.
        ema: decay of an exponential moving average of the weights (timm) and of the objective's state. The averaged
            network is then validated, tested and saved, instead of the last one. 0 switches the average off.
        swa: stochastic weight averaging, instead of ``ema``: the plain mean of the weights after each step, over this
            last share of the run. (Izmailov et al. 2018 average once per epoch.) 0 switches it off.
        recalibrate: number of training images on which the batch-norm statistics of averaged weights are recalibrated
            before evaluation and saving, for every path that a prediction uses. With 0, the running statistics are
            averaged instead.
        clip_norm: largest norm of all gradients together; gradients with a larger norm are scaled down to this norm. 0
            does not clip.
        parallel: settings for a run on several processes.
        validate_every: epochs between validations (the last epoch always validates).
        patience: early stopping: stop training after this many epochs without a lower error on held-out images. 0 never
            stops early.
        frozen_epochs: number of epochs at the start in which only the classifier is trained.
        fit_head: before training, fit the classifier on the frozen features of this many training images
            (:mod:`polypath.training.fit_head`). With 0, training starts with the classifier from the seed or ``init``.
        norms: ``trained``, or ``frozen`` for fine-tuning on few images. Frozen batch-norms normalise by the running
            statistics from ``init`` and do not update them. Their scales and shifts are trained. All paths use
            these statistics, and are not recalibrated after training.
        trace_test: also evaluate the test split at each validation. This is only for the papers' figures. The errors
            are called ``traced_test_error`` in the metrics, and no choice uses them.
        checkpoint_every: epochs between checkpoints (the last epoch always has one).
        checkpoint_steps: steps between additional checkpoints within an epoch; 0 writes none.
        keep: number of newest checkpoints to keep, in addition to the best one.
        tracker: a service to which the run is logged, in addition to TensorBoard and files.
        assumed: maps the dotted name of a field to the reason for its value, if the paper does not state the value or
            the value was settled (see ``open_fields``).
        open_fields: dotted names of fields whose values are settled from facts about the images when a run starts, see
            :mod:`polypath.training.settle`. A field that you give a value is no longer open.

    Raises:
        ValueError: a field is outside its range, or fields contradict each other.
    """

    name: str
    model: Family
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    objective: Objective = field(default_factory=Whole)
    epochs: int
    batch_size: int
    path: str = later("whole")
    accumulate: int = 1
    seed: int = 0
    init: str | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = True
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    swa: float = later(0.0)
    recalibrate: int = later(0)
    clip_norm: float = 0.0
    parallel: ParallelConfig = ParallelConfig()
    validate_every: int = 1
    trace_test: bool = False
    checkpoint_every: int = 1
    checkpoint_steps: int = 0
    keep: int = 2
    tracker: Tracker = "none"
    assumed: dict[str, str] = field(default_factory=dict)
    patience: int = later(0)
    frozen_epochs: int = later(0)
    fit_head: int = later(0)
    norms: Norms = later("trained")  # noqa: RUF009 (a Literal by name)
    open_fields: tuple[str, ...] = later(())

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(
            self,
            "",
            name=_WORD,
            model=instance(Family),
            data=instance(DataConfig),
            optim=instance(OptimConfig),
            schedule=instance(ScheduleConfig),
            objective=instance(Objective),
            epochs=whole(1),
            batch_size=whole(1),
            accumulate=whole(1),
            seed=whole(0),
            path=NAME,
            init=optional(_FOLDER),
            device=NAME,
            precision=one_of(*typing.get_args(Precision)),
            channels_last=FLAG,
            compile=FLAG,
            deterministic=FLAG,
            label_smoothing=number(0, below=1),
            mixup=number(0),
            cutmix=number(0),
            ema=number(0, below=1),
            swa=SHARE,
            recalibrate=_IMAGES,
            clip_norm=number(0),
            parallel=instance(ParallelConfig),
            validate_every=whole(1),
            trace_test=FLAG,
            checkpoint_every=whole(1),
            checkpoint_steps=whole(0),
            keep=whole(1),
            tracker=one_of(*typing.get_args(Tracker)),
            assumed=_REASONS,
            patience=whole(0),
            frozen_epochs=whole(0),
            fit_head=whole(0),
            norms=one_of(*typing.get_args(Norms)),
            open_fields=each(NAME),
        )
        if self.ema and self.swa:
            raise ValueError(f"swa = {self.swa} with ema = {self.ema}: a run has only one average; set swa or ema to 0")
        if self.norms == "frozen" and self.recalibrate:
            raise ValueError(f"recalibrate = {self.recalibrate}: must be 0, because norms = 'frozen' keeps statistics")
        if self.swa and not self.recalibrate and self.norms != "frozen":
            raise ValueError(
                f"swa = {self.swa} with recalibrate = 0: running batch-norm statistics do not fit averaged weights; "
                "set --recalibrate 2000 to recalibrate the statistics on 2,000 training images"
            )
        if self.patience and not (self.chooses or self.open_fields):
            raise ValueError(
                f"patience = {self.patience}: early stopping needs held-out images; set --data.validation 100"
            )
        if self.frozen_epochs >= self.epochs and "epochs" not in self.open_fields:
            raise ValueError(f"frozen_epochs = {self.frozen_epochs}: must be below epochs = {self.epochs}")
        if self.norms == "frozen" and self.init is None and "init" not in self.open_fields:
            raise ValueError("norms = 'frozen': needs init, whose running statistics are then kept; set --init")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate = {self.accumulate}: must be at most batch_size = {self.batch_size}")
        if self.device.split(":")[0] not in ("auto", "cpu", "cuda", "mps"):
            raise ValueError(f"device = {self.device!r}: must be auto, cpu, cuda, cuda:N or mps")
        if self.compile and self.parallel.batch_norm == "sync":
            raise ValueError("compile with parallel.batch_norm 'sync': units that communicate cannot be compiled")
        if self.optim.kind == "muon" and self.parallel.strategy == "fsdp":
            raise ValueError(
                "optim.kind = 'muon' with parallel.strategy 'fsdp': Muon needs complete matrices, not shards; use 'ddp'"
            )
        if (self.mixup or self.cutmix) and self.batch_size // self.accumulate % 2:
            raise ValueError("mixup and cutmix pair images: batch_size / accumulate must be even")
        self.schedule.check(self.epochs)
        for name in (*self.assumed, *self.open_fields):
            lookup(self, name)

    @property
    def averages(self) -> bool:
        """Whether averaged weights are evaluated and saved."""
        return bool(self.ema or self.swa)

    @property
    def chooses(self) -> bool:
        """Whether the best epoch is chosen on held-out images. If not, the last epoch is reported."""
        data = self.data
        return bool(data.validation or data.validation_extra or data.validation_split)


def lookup(recipe: Recipe, dotted: str) -> Any:
    """Return the value of the field with a dotted name such as ``optim.lr``.

    Raises:
        ValueError: there is no such field; the message lists the legal names.
    """
    value: Any = recipe
    for i, part in enumerate(parts := dotted.split(".")):
        legal = [f.name for f in fields(value)] if is_dataclass(value) else []
        if part not in legal:
            where = ".".join(parts[:i]) or "a recipe"
            raise ValueError(f"there is no recipe field {dotted!r}: {where} has {', '.join(legal) or 'no fields'}")
        value = getattr(value, part)
    return value


def replace(recipe: Recipe, changes: typing.Mapping[str, Any]) -> Recipe:
    """Return a copy of ``recipe`` with the values of ``changes``, which maps dotted names of fields to new values. The
    changed fields are no longer open.

    Raises:
        ValueError: a field is unknown, or its value is illegal.
    """
    tree: dict[str, Any] = {}
    for dotted, value in changes.items():
        lookup(recipe, dotted)
        *parents, last = dotted.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return _replaced(recipe, {"open_fields": still_open(recipe, changes), **tree})


def still_open(recipe: Recipe, given: Iterable[str]) -> tuple[str, ...]:
    """Return the open fields of ``recipe``, except the fields in ``given``, their parts, and tables that contain a
    given field."""
    given = [f"{name}." for name in given]
    return tuple(
        name
        for name in recipe.open_fields
        if not any(other.startswith(f"{name}.") or f"{name}.".startswith(other) for other in given)
    )


def _replaced(config: Any, changes: dict[str, Any]) -> Any:
    new = {}
    for name, value in changes.items():
        old = getattr(config, name)
        new[name] = _replaced(old, value) if is_dataclass(old) and isinstance(value, dict) else value
    return dataclasses.replace(config, **new)


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return all fields as JSON values. ``model`` becomes a family name and its arguments; ``objective`` includes its
    kind."""
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    values["model"] = {"family": recipe.model.family, "arguments": asdict(recipe.model)}
    values["objective"] = recipe.objective.to_json()
    plain = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
    }
    return json.loads(json.dumps(plain))


def recipe_from_json(values: dict[str, Any]) -> Recipe:
    """Read the result of :func:`recipe_to_json`. Missing fields get their defaults.

    Raises:
        ValueError: a field, the family or the objective is unknown, or the value of a field is illegal.
    """
    import polypath.training.path_objectives  # (this and the next import register the objectives)
    import polypath.training.sandwich  # noqa: F401

    table = dict(decode(values, dict[str, Any], "recipe"))
    kinds: dict[str, type] = {}
    if "model" in table:
        model = decode(table["model"], _Model, "recipe.model")
        kinds["model"], table["model"] = get_family(model.family), model.arguments
    if "objective" in table:
        kinds["objective"], table["objective"] = Objective.kind_of(table["objective"])
    return Recipe(**vars(decode(table, _recipe_of(**kinds), "recipe")))


@functools.cache
def _recipe_of(**kinds: type) -> type[Recipe]:
    """Make a subclass of ``Recipe`` whose fields ``model`` and ``objective`` have the classes in ``kinds``."""
    return dataclasses.make_dataclass("Recipe", kinds.items(), bases=(Recipe,), frozen=True, kw_only=True)


@dataclass
class _Model:
    family: str
    arguments: dict[str, Any] = field(default_factory=dict)
