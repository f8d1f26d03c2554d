"""The training step, and the state that a step changes.

The random numbers of a step depend only on the seed, the step and the part of the batch. So checkpoints need no
generator state. One process that accumulates gradients over parts draws the same numbers as several processes with one
part each.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polypath.core.batchnorm import norms
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.seeds import generator
from polypath.profiling.cost import PathMacs
from polypath.training.average import Average
from polypath.training.distributed import World, full, put, reduce_gradients, share
from polypath.training.flop import FlopCounter
from polypath.training.meter import Meter
from polypath.training.muon import Together
from polypath.training.objectives import StepInfo
from polypath.training.optim import build_optimizer, fill_unused, set_rate
from polypath.training.pathwise import release
from polypath.training.prepare import compile_units, prepare, shard
from polypath.training.recipe import Recipe
from polypath.training.schedules import Schedule

NONFINITE = 99
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine:
    """The state of a training: a network with its objective and optimiser, the moving average of its weights (if the
    recipe has one), and the metrics summed so far in this epoch.

    Args:
        net: the network. It is prepared in place, see :mod:`polypath.training.prepare`.
        steps_per_epoch: optimiser steps per epoch.

    Raises:
        ValueError: the network does not support the objective, or options exclude each other.
    """

    def __init__(self, recipe: Recipe, net: PathNet, device: torch.device, world: World, steps_per_epoch: int) -> None:
        if recipe.precision == "auto":
            raise ValueError("precision = 'auto': resolve it first with polypath.training.build.resolve_precision")
        self.recipe, self.device, self.world, self.steps_per_epoch = recipe, device, world, steps_per_epoch
        self.schedule = Schedule(
            recipe.schedule, recipe.optim.base_rate(recipe.batch_size), steps_per_epoch, recipe.epochs
        )
        self.mixup = _mixup(recipe, net.num_classes)
        macs = PathMacs(net)  # before the network is sharded or compiled
        self.net = prepare(net, recipe, device, world)
        steps = steps_per_epoch * recipe.epochs
        self.average = Average(recipe, self.net, steps) if recipe.averages else None
        if recipe.parallel.strategy == "fsdp":
            if recipe.objective.kind == "ensemble":
                raise ValueError(
                    "objective 'ensemble' with parallel.strategy 'fsdp' is not possible: its members share weights, "
                    "which cannot be sharded for each member; use strategy 'ddp'"
                )
            if recipe.objective.kind == "exits":
                raise ValueError(
                    "objective 'exits' with parallel.strategy 'fsdp' is not possible: it does not call the network's "
                    "forward(), which gathers the sharded weights; use strategy 'ddp'"
                )
        self.bound = recipe.objective.bind(self.net, label_smoothing=0.0 if self.mixup else recipe.label_smoothing)
        if recipe.parallel.strategy == "fsdp":
            shard(self.net, world)  # not earlier: an objective may count the MACs of its paths
        self.scorer = self.bound if self.average is None else self.average.bound
        self.flop = FlopCounter()
        self.flop.watch(self.net, macs)  # not earlier: the moving average would have copied the hooks
        for teacher in self.bound.teachers:
            self.flop.watch(teacher, PathMacs(teacher), teacher=True)
        self.optimizer = build_optimizer(self.net, recipe.optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.names = {p: name for name, p in self.net.named_parameters()}
        self.frozen: list[nn.Parameter] = []
        self.frozen_norms = list(norms(self.net).values()) if recipe.norms == "frozen" else []
        self.meter = Meter(world)
        self.paths_run: Counter[Paths] = Counter()
        if recipe.compile:
            compile_units(self.net)

    @property
    def scored(self) -> PathNet:
        """The network that is validated and saved: with averaged weights, if the recipe has an average."""
        return self.scorer.net

    def autocast(self) -> contextlib.AbstractContextManager:
        return autocast(self.device, self.recipe.precision)

    def predict(self, x: Tensor) -> Tensor:
        """Predict logits or log-probabilities ``(N, classes)`` with the scored network."""
        return self.scorer.predict(x)

    def share_statistics(self) -> None:
        """Broadcast rank 0's running statistics to all ranks, before the network is evaluated."""
        share(itertools.chain(self.scored.buffers(), self.scorer.state_dict().values()), self.world)

    def start_epoch(self, epoch: int) -> None:
        """Release the gradients and the optimiser's state of parameters that the objective or ``frozen_epochs`` freezes
        in ``epoch``."""
        names = self.bound.trainable(epoch)
        self.frozen = [] if names is None else [p for p, name in self.names.items() if name not in names]
        if epoch < self.recipe.frozen_epochs:
            learning = set(self.net.get_classifier().parameters()) - set(self.frozen)
            self.frozen = [p for p in self.names if p not in learning]
        release(self.optimizer, self.frozen)

    def step(
        self, parts: Sequence[tuple[int, Tensor, Tensor]], total: int, epoch: int, step: int, flag: int = 0
    ) -> int:
        """Run one step of the optimiser.

        Args:
            parts: this rank's parts of the batch. Each is a tuple of the part's number, images ``(n, C, H, W)`` and
                labels ``(n,)``.
            total: number of images in the batch, over all parts and ranks.
            epoch, step: numbers of the epoch and the step, counted from 0; ``step`` counts over the complete run.
            flag: a number that is sent to the other ranks (the number of a signal, or 0).

        Returns:
            The largest flag of all ranks; or ``NONFINITE`` if a loss was not finite. The weights are then not updated.
            On accelerators, a loss that is not finite is detected only when the meter is flushed, since a check in each
            step would wait for the device.
        """
        recipe = self.recipe
        set_rate(self.optimizer, self.schedule.at(step))
        self.net.train()
        for norm in self.frozen_norms:
            norm.eval()
        self.optimizer.zero_grad(set_to_none=True)
        for number, x, y in parts:
            if not self._part(number, x, y, len(x) / total, epoch, step):
                flag = NONFINITE
        for p in self.frozen:
            p.grad = None
        sharded = recipe.parallel.strategy == "fsdp"
        same = recipe.parallel.paths == "same"
        flag = reduce_gradients(list(self.names), self.world, same_paths=same, sharded=sharded, flag=flag)
        if flag == NONFINITE:
            return flag
        if recipe.optim.move_unused:
            frozen = set(self.frozen)
            fill_unused(p for p in self.names if p not in frozen)
        self.scaler.unscale_(self.optimizer)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_([p for p in self.names if p.grad is not None], recipe.clip_norm)
        self.scaler.step(self.optimizer)
        if isinstance(self.optimizer, Together) and self.world.first:  # all ranks do the same step: count it once
            with torch.no_grad():
                self.flop.add(1, self.optimizer.taken())
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.bound, step)
        return flag

    def _part(self, number: int, x: Tensor, y: Tensor, weight: float, epoch: int, step: int) -> bool:
        """Run the forward and backward passes on one part. Return False if a loss is known not to be finite."""
        recipe, info = self.recipe, step_info(self.recipe, self.steps_per_epoch, epoch, step, number, self.world.rank)
        torch.manual_seed(generator(recipe.seed, "step", step, number).initial_seed())
        if self.mixup is not None:
            x, y = mixed(self.mixup, x, y, generator(recipe.seed, "mixup", step, number))
        scale = weight * (self.world.size if recipe.parallel.strategy == "fsdp" else 1)  # FSDP2 averages over ranks
        passes, finite = iter(self.bound.passes(x, y, info)), True
        for i in itertools.count():
            with self.autocast():
                result = next(passes, None)
            if result is None:
                break
            self.flop.add(len(x), result.macs)
            if self.device.type == "cpu":
                finite = finite and math.isfinite(result.loss.item())
            self.scaler.scale(result.loss * scale).backward()
            self.meter.add(step, "loss", result.loss.detach() * weight)
            for name, value in result.parts.items():
                self.meter.add(step, name, value * weight)
            if i == 0:
                right = y if y.ndim == 1 else y.argmax(1)
                wrong = (result.logits.argmax(1) != right).float().mean()
                self.meter.add(step, "error", wrong * (100.0 * weight))
            self.paths_run.update(result.paths)
        return finite

    def weights(self) -> dict[str, Tensor]:
        """Return all weights and running statistics of the scored network, on the CPU. All ranks must call this
        together."""
        return {name: full(t) for name, t in self.scored.state_dict().items()}

    def objective_state(self) -> dict[str, Tensor]:
        """Return the tensors that the objective of the scored network has in addition to those of the network."""
        return {name: full(t) for name, t in self.scorer.state_dict().items()}

    # --- contents of a checkpoint ------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that training steps change, by name. All ranks must call this together."""
        held = {f"model/{name}": t for name, t in self.net.state_dict().items()}
        held |= {f"objective/{name}": t for name, t in self.bound.state_dict().items()}
        if self.average is not None:
            held |= {f"ema/{name}": t for name, t in self.scored.state_dict().items()}
            held |= {f"ema-objective/{name}": t for name, t in self.scorer.state_dict().items()}
        for p, name in self.names.items():
            state = self.optimizer.state.get(p, {})
            held |= {f"optim/{name}/{key}": t for key, t in state.items() if isinstance(t, Tensor)}
        return {name: full(t) for name, t in held.items()}

    def state(self) -> dict[str, Any]:
        """Return the rest of the training state, as JSON values. Call ``meter.flush()`` first."""
        return {"meter": self.meter.state(), "scaler": self.scaler.state_dict()}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Restore the state that :meth:`tensors` and :meth:`state` returned.

        Raises:
            ValueError: the tensors are of another network, objective or optimiser.
        """
        kinds = "model", "objective", "ema", "ema-objective", "optim"  # ema: the average (EMA or SWA)
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
        for name, t in tensors.items():
            kind, _, rest = name.partition("/")
            parts.setdefault(kind, {})[rest] = t
        load_weights(self.net, parts["model"])
        self.bound.load_state_dict(parts["objective"])
        if self.average is not None:
            load_weights(self.scored, parts["ema"])
            self.scorer.load_state_dict(parts["ema-objective"])
        known = {name: p for p, name in self.names.items()}
        self.optimizer.state.clear()
        for key, t in parts["optim"].items():
            name, _, what = key.rpartition("/")
            if name not in known:
                raise ValueError(f"optimiser state of {name!r}: this network has no such parameter")
            p = known[name]
            self.optimizer.state[p][what] = t.clone() if t.shape != p.shape else put(torch.empty_like(p.data), t)
        self.scaler.load_state_dict(state["scaler"])
        self.meter.load(state["meter"])


def step_info(recipe: Recipe, steps_per_epoch: int, epoch: int, step: int, number: int, rank: int = 0) -> StepInfo:
    """Return the progress of training at ``step``, with the random generators for part ``number`` of the step."""
    own = () if recipe.parallel.paths == "same" else (rank,)
    draws = generator(recipe.seed, "paths", step, *own), generator(recipe.seed, "noise", step, number)
    return StepInfo(epoch, step, steps_per_epoch, recipe.epochs, *draws)


def load_weights(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy ``tensors`` into the network's parameters and buffers, by name.

    Raises:
        ValueError: the tensors are of another network.
    """
    own = net.state_dict()
    if other := sorted(set(own) ^ set(tensors)):
        raise ValueError(f"weight {other[0]!r} is missing in the network or in the loaded weights; they must match")
    with torch.no_grad():
        for name, t in own.items():
            if t.shape != tensors[name].shape:
                raise ValueError(
                    f"weight {name!r} has shape {tuple(tensors[name].shape)}, but the network needs {tuple(t.shape)}"
                )
            put(t, tensors[name])


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return an autocast context for forward passes in ``precision``, which must not be ``auto``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def mixed(mixup: Any, x: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix images and labels with timm's mixup. timm draws from the global state of numpy, which is seeded from
    ``draw``."""
    if len(x) % 2:  # timm mixes pairs of images, so with an odd number the last image is not mixed
        more, target = mixed(mixup, x[:-1], y[:-1], draw)
        alone = torch.zeros_like(target[:1]).scatter_(1, y[-1:, None], 1.0)
        return torch.cat([more, x[-1:]]), torch.cat([target, alone])
    before = np.random.get_state()
    np.random.seed(draw.initial_seed() % 2**32)
    try:
        return mixup(x, y)
    finally:
        np.random.set_state(before)


def _mixup(recipe: Recipe, classes: int) -> Any:
    if not (recipe.mixup or recipe.cutmix):
        return None
    from timm.data.mixup import Mixup

    return Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
