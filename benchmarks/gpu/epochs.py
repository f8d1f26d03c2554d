"""Measures how long an epoch of a published recipe takes on a GPU, and projects the time of the whole training.

Steps run in the engine that `polypath train` uses: batches and augmentation on the device, the recipe's paths, its
optimiser, bf16, the published batch size. After a warm-up, steps are timed for some seconds, or for two epochs if these
are shorter. The time of an epoch follows from this rate. The projection includes all epochs of the recipe and one
scoring of the test images, but no checkpoints. If CIFAR-10 is missing, images are noise, since their content does not
change the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.plan import Plan
from benchmarks.harness import device_peak, synchronize
from polypath.data.sources import ImageData, load_images
from polypath.data.split import Split
from polypath.training.build import build_net, check_fits, eval_batches, numerics, train_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.evaluate import evaluate
from polypath.training.recipe import Recipe
from polypath.training.recipe import replace as with_fields
from polypath.training.recipes import get_recipe

RECIPES = {
    "gunn15-cifar10": "gunn15",
    "dfn_mr56-cifar10": "dfn_mr56",
    "crescendonet_128-cifar10": "crescendonet_128",
}  # each recipe, with the network of the plan that it trains
WARMUP, LOOK = 20, 50  # number of steps before the measurement, and between two readings of the clock


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    return {name: partial(_recipe, name, plan) for name in RECIPES}


def _recipe(name: str, plan: Plan) -> dict[str, Any]:
    recipe = with_fields(get_recipe(name), {"precision": "bf16", "channels_last": True})
    if plan.cut is not None:
        changes = {f"model.{field}": value for field, value in plan.cut[RECIPES[name]].items()}
        recipe = with_fields(recipe, {**changes, "batch_size": plan.batch_size})
    if plan.images is not None and plan.cut is None:
        data = load_images(replace(recipe.data, source=plan.images))
    else:
        data = random_images(recipe.model.num_classes, *plan.noise)
    return {"rows": [measure(recipe, data, torch.device("cuda"), plan.epoch_seconds)]}


def random_images(classes: int, training: int, test: int, size: int = 32) -> ImageData:
    """Return images of noise with the shapes of CIFAR's images."""
    draw = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        images = torch.randint(256, (n, 3, size, size), generator=draw, dtype=torch.uint8)
        return Split(images, torch.randint(classes, (n,), generator=draw))

    names = tuple(map(str, range(classes)))
    return ImageData("noise", split(training), None, split(test), names, (0.5,) * 3, (0.25,) * 3)


def measure(recipe: Recipe, data: ImageData, device: torch.device, seconds: float) -> dict[str, Any]:
    """Measure the time of an epoch of ``recipe`` on ``device`` by running steps for about ``seconds``. Project the time
    of the training."""
    world, step, timed, took, epoch = World(), 0, 0, 0.0, 0
    with numerics(device, recipe.deterministic):
        net = build_net(recipe)
        check_fits(net, data)
        batches = train_batches(data, recipe, device, world)
        engine = Engine(recipe, net, device, world, len(batches))
        warmup = min(WARMUP, len(batches))
        begun = time.perf_counter()
        while took < seconds and timed < 2 * len(batches):
            engine.start_epoch(epoch)
            batches.set_epoch(epoch)
            batches.start(0)
            for x, y in batches:
                engine.step([(0, x, y)], len(x), epoch, step)
                step += 1
                if step == warmup:
                    synchronize()
                    begun = time.perf_counter()
                elif step > warmup and (step - warmup) % LOOK == 0:
                    synchronize()
                    took, timed = time.perf_counter() - begun, step - warmup
                    if took >= seconds:
                        break
            losses = engine.meter.flush()  # flush waits until the device has finished
            if step > warmup:
                took, timed = time.perf_counter() - begun, step - warmup
            epoch += 1
        peak = device_peak(lambda: engine.step([(0, x, y)], len(x), epoch - 1, step))
        begun = time.perf_counter()
        test = eval_batches("test", data, recipe, device, world)
        scores = evaluate(engine.scored, engine.predict, test, world, engine.autocast())
        scoring = time.perf_counter() - begun
    epoch_s = took / timed * len(batches)
    return {
        "recipe": recipe.name,
        "data": data.name,
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        "channels_last": recipe.channels_last,
        "deterministic": recipe.deterministic,
        "images": batches.num_images,
        "steps_per_epoch": len(batches),
        "timed_steps": timed,
        "timed_s": took,
        "epoch_s": epoch_s,
        "images_per_s": batches.num_images / epoch_s,
        "test_scoring_s": scoring,
        "epochs": recipe.epochs,
        "projected_hours": (epoch_s * recipe.epochs + scoring) / 3600,
        "peak_bytes": peak,
        "last_loss": losses[-1][1]["loss"],
        "test_images": scores.images,
    }
