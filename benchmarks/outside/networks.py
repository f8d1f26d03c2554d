"""Networks with their paths, each with a function that trains it for a number of epochs or steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.outside.airbench import LOOKAHEAD, AirRecipe, train_air
from benchmarks.outside.airnet import PLAIN
from polypath.core.network import PathNet
from polypath.data.sources import ImageData
from polypath.families.base import Family
from polypath.profiling.cost import cost, macs_in_turn
from polypath.training.build import resolve_device
from polypath.training.flop import PETA
from polypath.training.loop import resume, train
from polypath.training.objectives import StepInfo
from polypath.training.path_objectives import Exits
from polypath.training.recipe import Recipe, replace
from polypath.training.run import RunFolder

BATCH = 64  # batch size of the timed step
SECONDS = 1.0
BACKWARD = 3  # the cost of a forward and a backward pass, in forward passes
Step = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Trained:
    """The result of training. ``seconds`` is the time of all sessions. ``test_evaluations`` is the number of errors
    that were measured on test images."""

    pflop: float
    seconds: float
    test_evaluations: int


class Network(Protocol):
    """A network that one training produces.

    Attributes:
        name: name within its method.
        paths: texts of the paths to measure; each path is a point of the front.
        unit: the unit of the training length: ``epochs`` or ``steps``.
        least: smallest number of units of a learning rate trial.
        lr: the learning rate in the middle of those that are tried.
    """

    @property
    def name(self) -> str: ...
    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def unit(self) -> str: ...
    @property
    def least(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def model(self) -> Family: ...

    def macs(self, size: tuple[int, int]) -> int:
        """Return the MACs of a forward pass for one image in training."""
        ...

    def images(self, data: ImageData) -> int:
        """Return the number of images in one unit of training."""
        ...

    def train(self, folder: Path, data: ImageData, *, amount: int, lr: float, seed: int) -> Trained:
        """Train for ``amount`` units in ``folder``, or resume the training there. ``folder/model`` is the network.

        Raises:
            ValueError: the folder contains a training with other settings.
        """
        ...

    def step_of(self, net: PathNet) -> Step:
        """Return a function of images and labels that runs a training step of ``net``."""
        ...


@dataclass(frozen=True)
class ByRecipe:
    """A network trained by an ordinary recipe, in an ordinary run folder."""

    name: str
    recipe: Recipe

    unit, least = "epochs", 1

    @property
    def model(self) -> Family:
        return self.recipe.model

    @property
    def lr(self) -> float:
        return self.recipe.optim.lr

    @property
    def paths(self) -> tuple[str, ...]:
        objective = self.recipe.objective
        return objective.paths if isinstance(objective, Exits) else ("whole",)

    def macs(self, size: tuple[int, int]) -> int:
        net = self.model.build(0)
        return cost(net, size=size).macs if len(self.paths) == 1 else sum(macs_in_turn(net, self.paths, size))

    def images(self, data: ImageData) -> int:
        count, size = len(data.train), self.recipe.batch_size
        return count - (count % size if count % size < 2 else 0)  # the training drops a batch of one image

    def train(self, folder: Path, data: ImageData, *, amount: int, lr: float, seed: int) -> Trained:
        changes = {"epochs": amount, "optim.lr": lr, "seed": seed, "validate_every": amount}
        wanted = replace(self.recipe, changes)
        if (folder / "recipe.json").is_file():
            found = RunFolder.open(folder).recipe
            if found != replace(wanted, {"precision": found.precision}):
                raise ValueError(f"{folder} contains a run of another recipe: choose another --folder")
            result = resume(folder, data=data)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            result = train(wanted, folder, data=data)
        assert result.pflop is not None
        return Trained(result.pflop, result.seconds, 0)  # this run's "test" images are held-out images

    def step_of(self, net: PathNet) -> Step:
        bound, info = self.recipe.objective.bind(net), StepInfo(0, 0, 1, 1, torch.Generator().manual_seed(0))
        return lambda x, y: bound.step(x, y, info).loss.backward()


@dataclass(frozen=True)
class ByAirbench:
    """The network of airbench, trained by airbench's recipe. Its folder contains ``model/`` and ``summary.json``."""

    name: str
    recipe: AirRecipe
    paths: tuple[str, ...]

    unit, least = "steps", 2 * LOOKAHEAD  # before the first lookahead, the slow average is the untrained network

    @property
    def model(self) -> Family:
        return self.recipe.model

    @property
    def lr(self) -> float:
        return self.recipe.lr

    def macs(self, size: tuple[int, int]) -> int:
        return cost(self.model.build(0), PLAIN, size).macs

    def images(self, data: ImageData) -> int:
        return self.recipe.batch_size

    def train(self, folder: Path, data: ImageData, *, amount: int, lr: float, seed: int) -> Trained:
        found = train_air(changed(self.recipe, steps=amount, lr=lr, seed=seed), folder, data)
        return Trained(found["pflop"], found["seconds"], found["test_evaluations"])

    def step_of(self, net: PathNet) -> Step:
        return lambda x, y: F.cross_entropy(net(x, PLAIN), y).backward()


def pflop_of_unit(network: Network, data: ImageData) -> float:
    """Return the PFLOP of one unit of training, an epoch or a step."""
    return 2 * BACKWARD * network.macs(data.size) * network.images(data) / PETA


def pflop_per_second(network: Network, data: ImageData) -> float:
    """Measure the speed of training on this machine, for a second after a warm-up step."""
    net, device = network.model.build(0).train(), resolve_device("auto")
    net = net.to(device)
    x = torch.randn(BATCH, data.channels, *data.size, device=device)
    y = torch.randint(len(data.classes), (BATCH,), device=device)
    step = network.step_of(net)
    step(x, y)
    count, begun = 0, _now(device)
    while (took := _now(device) - begun) < SECONDS or not count:
        step(x, y)
        count += 1
    return 2 * BACKWARD * network.macs(data.size) * BATCH * count / took / PETA


def arguments(network: Network) -> dict[str, Any]:
    """Return the settings of the network as JSON values."""
    return {"family": network.model.family, "arguments": asdict(network.model)}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
