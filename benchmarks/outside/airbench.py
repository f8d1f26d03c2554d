"""Training by the published recipe of cifar10-airbench94 (Jordan 2024), reimplemented from its description.

The optimiser is SGD with Nesterov momentum on summed losses. Learning rate and weight decay are given for 1,024 images,
and are independent of each other and of the momentum. Biases of norms have a learning rate 64 times as high, and the
same decay as all weights. The learning rate rises from 0.2 of its peak to the peak at 23% of the steps, then falls to
0.07 of it. The first conv is set to whiten 5,000 training images and then frozen; its bias is frozen after three
epochs. Every fifth step, the weights are set to their slow average (lookahead), which is the final result. Images are
mirrored alternately (each image in every second epoch, with a random start) and shifted by up to two reflected pixels.

Differences from the original are float32 or bf16 instead of float16, and any number of steps. All random numbers depend
only on the seed and the epoch, so a run resumes from a checkpoint bit-exactly.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.outside.airnet import PLAIN, AirNet, whiten
from polypath.core.network import PathNet
from polypath.data.augment import crop_at, mirror_where, pad_images
from polypath.data.loader import flipped_by_turns
from polypath.data.seeds import generator
from polypath.data.sources import ImageData
from polypath.data.split import Split
from polypath.profiling.cost import PathMacs
from polypath.storage.digests import json_digest
from polypath.storage.files import read_json, write_json
from polypath.storage.saving import save
from polypath.training.build import MODEL, resolve_device, resolve_precision
from polypath.training.checkpoint import Checkpoint, Checkpoints
from polypath.training.engine import autocast, load_weights
from polypath.training.flop import PETA, FlopCounter
from polypath.training.signals import leaving, stop_requests

LOG = logging.getLogger(__name__)
LOOKAHEAD = 5  # number of steps from one lookahead to the next
START, PEAK, END = 0.2, 0.23, 0.07


@dataclass(frozen=True, kw_only=True)
class AirRecipe:
    """The hyper-parameters of the recipe, with the published values as defaults.

    Args:
        steps: number of steps of the optimiser (published: 9.9 epochs).
        lr, weight_decay: learning rate and weight decay for 1,024 images.
        whiten_images: number of training images from whose patches the whitening is computed.
        whiten_epochs: number of epochs after which the bias of the whitening conv is frozen.
    """

    model: AirNet
    steps: int
    lr: float = 11.5
    batch_size: int = 1024
    momentum: float = 0.85
    weight_decay: float = 0.0153
    norm_lr: float = 64.0
    label_smoothing: float = 0.2
    translate: int = 2
    whiten_images: int = 5000
    whiten_epochs: int = 3
    seed: int = 0
    device: str = "auto"
    checkpoint_steps: int = 20

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values, equal to those that are read from its file."""
        values = {**asdict(self), "model": {"family": self.model.family, "arguments": asdict(self.model)}}
        return json.loads(json.dumps(values))


def rate(step: int, steps: int) -> float:
    """Return the learning rate at a step (counted from 0), as a share of the peak."""
    warm = int(PEAK * steps)
    if step < warm:
        return START + (1.0 - START) * step / warm
    return 1.0 + (END - 1.0) * (step - warm) / (steps - warm)


def slowness(step: int, steps: int) -> float:
    """Return the decay of the slow average after ``step`` steps: the share of the old value that is kept."""
    return 0.95**LOOKAHEAD * (step / steps) ** 3


def optimizer(net: PathNet, recipe: AirRecipe) -> torch.optim.SGD:
    """Make the optimiser with two groups: biases of norms, and the other parameters. ``peak`` of a group is its peak
    learning rate."""
    # size of the step under a constant gradient, relative to that of one image
    scale = 1024 * (1 + 1 / (1 - recipe.momentum))
    lr, decay = recipe.lr / scale, recipe.weight_decay * recipe.batch_size / scale
    shifts = {m.bias for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    learnt = [p for p in net.parameters() if p.requires_grad]
    parts = [([p for p in learnt if p in shifts], lr * recipe.norm_lr), ([p for p in learnt if p not in shifts], lr)]
    groups = [{"params": params, "lr": peak, "peak": peak, "weight_decay": decay / peak} for params, peak in parts]
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True)


def train_air(recipe: AirRecipe, folder: Path, data: ImageData) -> dict[str, Any]:
    """Train in ``folder``, or resume the training there, and write ``model/`` and ``summary.json``. Return the values
    of the summary.

    Raises:
        ValueError: the folder has a run of another recipe, or there are fewer images than a batch has.
        FloatingPointError: the loss is not finite.
        Interrupted, Stopped: Ctrl-C or SIGTERM was received. A checkpoint has been written.
    """
    file, written = folder / "summary.json", recipe.to_json()
    known = folder / "recipe.json"
    if known.is_file() and read_json(known) != written:
        raise ValueError(f"{folder} contains a run of another recipe: choose another --folder")
    if file.is_file():
        return read_json(file)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(known, written)
    training = AirTraining(recipe, data, Checkpoints(folder / "checkpoints", json_digest(written)))
    begun = time.monotonic()
    with stop_requests() as request:
        for _ in training.steps():
            if request.signal:
                training.save()
                raise leaving(
                    request.signal, f"{folder}: stopped after step {training.step}; run the same command to resume"
                )
    save(
        training.net.cpu(),
        folder / MODEL,
        overwrite=True,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        image_size=data.size,
    )
    summary = {
        "pflop": training.flop / PETA,
        "steps": training.step,
        "epochs": training.step / training.batches,
        "seconds": round(training.seconds + time.monotonic() - begun, 1),
        "test_evaluations": 0,
    }
    write_json(file, summary)
    return summary


class AirTraining:
    """A run of airbench's recipe: its state, and the steps that change it.

    Attributes:
        net, step, flop: the network, the number of steps and the floating-point operations so far.
        batches: number of steps in an epoch. A smaller last batch is dropped.
        seconds: seconds of earlier sessions.

    Raises:
        ValueError: there are fewer images than a batch has, or the images are not in memory.
    """

    def __init__(self, recipe: AirRecipe, data: ImageData, checkpoints: Checkpoints) -> None:
        if not isinstance(data.train, Split):
            raise ValueError("airbench requires images in memory (data.streaming = False)")
        self.recipe, self.data, self.checkpoints = recipe, data, checkpoints
        self.images, self.labels = data.train.images, data.train.labels
        self.batches = len(self.labels) // recipe.batch_size
        if not self.batches:
            raise ValueError(
                f"batch_size = {recipe.batch_size}: must be at most {len(self.labels)}, the number of training images"
            )
        self.device = resolve_device(recipe.device)
        self.precision = resolve_precision("auto", self.device)
        self.net = recipe.model.build(recipe.seed)
        macs = PathMacs(self.net)
        white = self.net.get_submodule("whiten")
        assert isinstance(white, nn.Conv2d)
        assert white.bias is not None
        self.white_bias = white.bias
        whiten(white, self._normalised(self.images[: recipe.whiten_images]))
        self.net.to(self.device).to(memory_format=torch.channels_last)
        self.counter = FlopCounter()
        self.counter.watch(self.net, macs)
        self.optimizer = optimizer(self.net, recipe)
        self.slow = {name: t.clone() for name, t in self._averaged().items()}
        self.plain, self.step, self.flop, self.seconds = self.net.paths(PLAIN), 0, 0, 0.0
        self._epoch = -1
        self._begun = time.monotonic()
        checkpoints.newest(self._load)

    def steps(self) -> Iterator[float]:
        """Train to the end, and yield the mean loss of each step."""
        while self.step < self.recipe.steps:
            yield self._train(*self._batch())
            if self.step % self.batches == 0:
                LOG.info("epoch %d of %.1f", self.step // self.batches, self.recipe.steps / self.batches)
            if self.step % self.recipe.checkpoint_steps == 0 or self.step == self.recipe.steps:
                self.save()

    def _train(self, x: Tensor, y: Tensor) -> float:
        recipe = self.recipe
        share = rate(self.step, recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak"]
        self.white_bias.requires_grad_(self.step // self.batches < recipe.whiten_epochs)
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            logits = self.net(x, self.plain)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing, reduction="sum")
        mean = loss.item() / len(y)
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"airbench: the loss of step {self.step + 1} is not finite; try a lower learning rate"
            )
        loss.backward()
        self.optimizer.step()
        self.flop += self.counter.take()
        self.step += 1
        if self.step % LOOKAHEAD == 0:
            self._look(slowness(self.step, recipe.steps))
        if self.step == recipe.steps:
            self._look(1.0)
        return mean

    @torch.no_grad()
    def _look(self, kept: float) -> None:
        """Do a lookahead: move the slow average towards the weights, then set the weights to the average."""
        for name, t in self._averaged().items():
            t.copy_(self.slow[name].lerp_(t, 1.0 - kept))

    def _averaged(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.net.state_dict().items() if t.is_floating_point()}

    # --- images ------------------------------------------------------------------------------------------

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Return images and labels of the next step. They depend only on the seed and the step."""
        recipe, images = self.recipe, len(self.labels)
        epoch, batch = divmod(self.step, self.batches)
        if epoch != self._epoch:
            self._order = torch.randperm(images, generator=generator(recipe.seed, "order", epoch))
            room = 2 * recipe.translate + 1
            self._places = torch.randint(room, (images, 2), generator=generator(recipe.seed, "translate", epoch))
            self._mirrored, self._epoch = flipped_by_turns(images, recipe.seed, epoch), epoch
        at = self._order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
        x = mirror_where(self._normalised(self.images[at]), self._mirrored[at])
        x = crop_at(pad_images(x, recipe.translate, "reflect"), self._places[at], (x.shape[-2], x.shape[-1]))
        x = x.to(self.device).to(memory_format=torch.channels_last)
        return x, self.labels[at].to(self.device)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.data.mean, self.data.std))
        return (images.float() / 255 - mean) / std

    # --- checkpoints -------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this step, and delete all others."""
        names: dict[Tensor, str] = {p: name for name, p in self.net.named_parameters()}
        tensors = {f"model/{name}": t for name, t in self.net.state_dict().items()}
        tensors |= {f"slow/{name}": t for name, t in self.slow.items()}
        for p, state in self.optimizer.state.items():
            if state.get("momentum_buffer") is not None:
                tensors[f"momentum/{names[p]}"] = state["momentum_buffer"]
        seconds = self.seconds + time.monotonic() - self._begun
        self.checkpoints.save(Checkpoint(self.step, tensors, {"flop": self.flop, "seconds": seconds}))
        self.checkpoints.keep(1)

    def _load(self, checkpoint: Checkpoint) -> None:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "slow": {}, "momentum": {}}
        for name, t in checkpoint.tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = t
        load_weights(self.net, parts["model"])
        for name, t in parts["slow"].items():
            self.slow[name].copy_(t)
        known = dict(self.net.named_parameters())
        for name, t in parts["momentum"].items():
            self.optimizer.state[known[name]]["momentum_buffer"] = torch.empty_like(known[name]).copy_(t)
        self.step, self.flop = checkpoint.step, checkpoint.state["flop"]
        self.seconds = checkpoint.state["seconds"]
