"""The cost of experiments before they run: order, PFLOP, and time at a given speed.

    plan = plan_of("medium")
    plan.pflop

Experiments share runs, which the store trains once. The cost of a run is counted for the first experiment that needs
it. A projection is the cost of one run at the published setting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional

from polypath.core.checks import check, one_of
from polypath.profiling.cost import PathMacs
from polypath.reproduce.experiment import SCALES, Experiment, Scale, halved
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.training.build import build_net, resolve_device, resolve_precision
from polypath.training.expected import expected_pflop
from polypath.training.flop import PETA, FlopCounter
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.recipe import replace as changed
from polypath.training.schedules import ScheduleConfig

IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 604_388, "imagenet": 1_281_167, "digits": 1437}
"""The number of training images of each dataset that recipes use (for SVHN, with the extra images)."""
CARRIED = (
    "crescendonet/table2",
    "crescendonet/figure3",
    "crescendonet/figure4",
    "fractalnet/table1",
    "fractalnet/suspects",
    "fractalnet/table3",
    "fractalnet/table4",
    "dfn/table4",
    "dfn/table2",
    "dfn/table3",
    "dfn/fig5",
    "gunn/table5",
    "gunn/collapse",
    "drnn/table1",
    "drnn/table3",
    "drnn/fig6",
    "drnn/fig7",
    "drnn/fig8",
    "drnn/fig9",
)
"""The main experiments of each paper. They run first, in this order."""
HEADLINES = ("crescendonet/table2", "fractalnet/anytime", "dfn/table4", "gunn/table1", "drnn/table2")
"""One experiment per paper. Its first run at the published setting is projected by default."""
EPOCHS, EVERY = 4, 97
"""If paths are drawn at random, PFLOP are estimated from 4 epochs (path-wise training trains one branch per epoch) and
every 97th step. Otherwise, all steps cost the same, and the estimate needs only one."""
ALIKE = ("whole", "path", "ensemble", "target-rate")
"""Objectives whose steps all cost the same."""
TIMED_IMAGES, TIMED_STEPS = 32, 2
GPU_RATE = 1.0e14
"""The GPU speed that a projection assumes, in FLOP/s: a tenth of the dense bf16 peak of an H100 or H200 (989 TFLOP/s in
the data sheet), since small networks leave most of a GPU idle."""


@dataclass(frozen=True)
class Planned:
    """The cost of one experiment at a scale.

    Attributes:
        own: PFLOP of all runs of the experiment. ``pflop`` counts only the new runs, which no earlier experiment needs.
        runs: the number of new runs.
    """

    name: str
    place: str
    seeds: int
    arms: int
    runs: int
    own: float
    pflop: float


@dataclass(frozen=True)
class Plan:
    """The costs of experiments at a scale, in the order in which they run."""

    scale: str
    experiments: tuple[Planned, ...]

    @property
    def pflop(self) -> float:
        return sum(planned.pflop for planned in self.experiments)


def in_order(scale: str) -> list[str]:
    """Return the names of the experiments that have a scale, each paper's main ones first."""
    check("--scale", scale, one_of(*SCALES))
    known = [name for name in list_experiments() if scale in get_experiment(name).scales]
    return [name for name in CARRIED if name in known] + [name for name in known if name not in CARRIED]


def plan_of(scale: str, names: Iterable[str] | None = None) -> Plan:
    """Compute the cost of experiments, by default of all that have the scale."""
    paid: set[str] = set()
    found = []
    for name in in_order(scale) if names is None else names:
        experiment = get_experiment(name)
        found.append(_planned(experiment, experiment.scale(scale), paid))
    return Plan(scale, tuple(found))


def _planned(experiment: Experiment, scale: Scale, paid: set[str]) -> Planned:
    own = new = 0.0
    runs = 0
    trains = experiment.measure is not None
    for recipe in scale.arms.values() if trains else ():
        for of in (recipe, halved(recipe)) if scale.both_lengths else (recipe,):
            cost, key = scale.seeds * run_pflop(of), _key(of)
            own += cost
            new += 0.0 if key in paid else cost
            runs += 0 if key in paid else scale.seeds
            paid.add(key)
    return Planned(experiment.name, experiment.place, scale.seeds, len(scale.arms), runs, own, new)


def scale_pflop(scale: Scale) -> float:
    """Compute the PFLOP of all runs of a scale."""
    lengths = [(r, halved(r)) if scale.both_lengths else (r,) for r in scale.arms.values()]
    return scale.seeds * sum(run_pflop(recipe) for of in lengths for recipe in of)


_KNOWN: dict[str, float] = {}


def run_pflop(recipe: Recipe) -> float:
    """Compute the PFLOP of one run from a few of its steps."""
    images, alike = images_of(recipe), recipe.objective.kind in ALIKE
    steps = {"epochs": 1 if alike else EPOCHS, "schedule": ScheduleConfig(), "seed": 0, "precision": "fp32"}
    steps |= {"frozen_epochs": 0, "patience": 0, "batch_size": min(recipe.batch_size, images)}
    probe = changed(recipe, steps)
    if (key := _key(probe)) not in _KNOWN:
        every = images if alike else EVERY
        _KNOWN[key] = expected_pflop(probe, images, side_of(recipe), every=every) / probe.epochs
    return _KNOWN[key] * recipe.epochs


def images_of(recipe: Recipe) -> int:
    """Return the number of training images of a recipe's dataset."""
    data = recipe.data
    return data.train_images or IMAGES.get(data.source, IMAGES["cifar10"])


def side_of(recipe: Recipe) -> int:
    """Return the side of the images that a recipe's network reads, in pixels."""
    return recipe.data.size or (8 if recipe.data.source == "digits" else 32)


def _key(recipe: Recipe) -> str:
    left = {"name": "any", "assumed": {}}
    return json.dumps({**recipe_to_json(recipe), **left}, sort_keys=True)


def seconds_here(scale: Scale, pflop: float, device: str = "auto") -> float:
    """Return the seconds that ``pflop`` PFLOP take on this machine, at the measured speed of the scale's first arm."""
    if not pflop:
        return 0.0
    return pflop * PETA / rate_here(next(iter(scale.arms.values())), device)


def rate_here(recipe: Recipe, device: str = "auto") -> float:
    """Measure the FLOP/s of a recipe's training on this machine, from a few timed steps on random images."""
    place = resolve_device(device)
    half = resolve_precision(recipe.precision, place) == "bf16"
    net, counter = build_net(recipe).to(place).train(), FlopCounter()
    counter.watch(net, PathMacs(net))
    side = side_of(recipe)
    x = torch.randn(TIMED_IMAGES, net.in_chans, side, side, device=place)
    if recipe.channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.zeros(TIMED_IMAGES, dtype=torch.long, device=place)

    def step() -> None:
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(net(x).float(), y)
        loss.backward()
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    step()
    counter.take()
    begun = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    return counter.take() / (time.perf_counter() - begun)


@dataclass(frozen=True)
class Projection:
    """The projected cost of one run: PFLOP, and the speed in FLOP/s on this machine (measured) and on a GPU (assumed),
    with the resulting seconds."""

    recipe: str
    pflop: float
    rate_here: float
    rate_gpu: float

    @property
    def seconds_here(self) -> float:
        return self.pflop * PETA / self.rate_here

    @property
    def seconds_gpu(self) -> float:
        return self.pflop * PETA / self.rate_gpu


def projected(recipe: Recipe, rate_gpu: float = GPU_RATE) -> Projection:
    """Project the time of one run of a recipe on this machine and on a GPU of ``rate_gpu`` FLOP/s."""
    return Projection(recipe.name, run_pflop(recipe), rate_here(recipe), rate_gpu)
