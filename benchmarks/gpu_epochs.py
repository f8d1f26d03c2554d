"""The time of an epoch of a published recipe on an accelerator, and the projected time of the complete training.

    python -m benchmarks.gpu_epochs                   # on CUDA, the three recipes below, bf16, batch as published
    python -m benchmarks.gpu_epochs gunn24-cifar10 --compile --source DIR

Complete epochs run through the engine of `polypath train`: batches and augmentation on the device, the recipe's paths,
its optimiser. Images are random unless --source names a folder: their content does not affect the time. The projection
is the median epoch times the recipe's epochs, plus one scoring of the test images, without checkpoints and the warm-up
epoch. Results go to benchmarks/results/cuda/gpu_epochs.json, one row per recipe and setting; earlier rows stay.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polypath.data.sources import ImageData, load_images
from polypath.data.split import Split
from polypath.storage.files import write_json
from polypath.training.build import build_net, check_fits, eval_batches, numerics, resolve_device, train_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.evaluate import evaluate
from polypath.training.recipe import Recipe
from polypath.training.recipe import replace as with_fields
from polypath.training.recipes import get_recipe
from polypath.training.run import environment

RECIPES = ("gunn15-cifar10", "dfn_mr56-cifar10", "crescendonet_128-cifar10")
RESULTS = Path(__file__).parent / "results" / "cuda" / "gpu_epochs.json"
TRAINING, TEST, SIZE = 50_000, 10_000, 32


def random_images(classes: int, training: int = TRAINING, test: int = TEST, size: int = SIZE) -> ImageData:
    """Random images in the shape of CIFAR."""
    draw = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        images = torch.randint(256, (n, 3, size, size), generator=draw, dtype=torch.uint8)
        return Split(images, torch.randint(classes, (n,), generator=draw))

    names = tuple(map(str, range(classes)))
    return ImageData("noise", split(training), None, split(test), names, (0.5,) * 3, (0.25,) * 3)


def measure(recipe: Recipe, data: ImageData, device: torch.device, epochs: int = 2, warmup: int = 1) -> dict[str, Any]:
    """Seconds of complete epochs of ``recipe`` on ``device`` after ``warmup`` others, and the projection."""
    world, seconds, step = World(), [], 0
    with numerics(device, recipe.deterministic):
        net = build_net(recipe)
        check_fits(net, data)
        batches = train_batches(data, recipe, device, world)
        engine = Engine(recipe, net, device, world, len(batches))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for epoch in range(warmup + epochs):
            engine.start_epoch(epoch)
            batches.set_epoch(epoch)
            batches.start(0)
            begun = time.perf_counter()
            for x, y in batches:
                engine.step([(0, x, y)], len(x), epoch, step)
                step += 1
            losses = engine.meter.flush()  # waits for the device
            seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        test = eval_batches("test", data, recipe, device, world)
        scores = evaluate(engine.scored, engine.predict, test, world, engine.autocast())
        scoring = time.perf_counter() - begun
    timed = seconds[warmup:]
    median = statistics.median(timed)
    return {
        "recipe": recipe.name,
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        "channels_last": recipe.channels_last,
        "compile": recipe.compile,
        "deterministic": recipe.deterministic,
        "images": batches.num_images,
        "steps_per_epoch": len(batches),
        "warmup_epoch_s": seconds[:warmup],
        "epoch_s": timed,
        "median_epoch_s": median,
        "images_per_s": batches.num_images / median,
        "test_scoring_s": scoring,
        "epochs": recipe.epochs,
        "projected_hours": (median * recipe.epochs + scoring) / 3600,
        "peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        "last_loss": losses[-1][1]["loss"],
        "test_images": scores.images,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs, after a warm-up epoch (default 2)")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--fast", action="store_true", help="allow nondeterministic algorithms")
    parser.add_argument("--source", help="folder of CIFAR; default random images")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    try:
        device = resolve_device(args.device)
        recipes = [get_recipe(name) for name in args.recipes]
        if args.epochs < 1:
            raise ValueError(f"--epochs {args.epochs}: must be at least 1")
        changes = {"precision": args.precision, "channels_last": True}
        changes |= {"compile": args.compile, "deterministic": not args.fast}
        for recipe in recipes:
            asked = with_fields(recipe, changes)
            if args.source:
                data = load_images(replace(asked.data, source=args.source))
            else:
                data = random_images(asked.model.num_classes)
            row = measure(asked, data, device, args.epochs)
            _keep(args.out, row, environment(device))
            print(f"{asked.name:28} {row['median_epoch_s']:8.2f} s an epoch, {row['projected_hours']:.2f} h in all")
    except ValueError as error:
        print(f"gpu_epochs: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}")
    return 0


def _keep(file: Path, row: dict[str, Any], where: dict[str, Any]) -> None:
    """Add a row to the results, replacing a row of the same recipe, settings and device."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    row = {**row, "environment": where}
    rows = [other for other in rows if _which(other) != _which(row)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"rows": [*rows, row]})


def _which(row: dict[str, Any]) -> tuple:
    settings = ("recipe", "batch_size", "precision", "compile", "deterministic")
    return *(row[name] for name in settings), row["environment"]["device_name"]


if __name__ == "__main__":
    sys.exit(main())
